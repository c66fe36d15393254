-- name: LastPosition :one
SELECT CAST(ifnull(max(position), 0) AS INTEGER) FROM changes;

-- name: FirstPosition :one
SELECT CAST(ifnull(min(position), 0) AS INTEGER) FROM changes;

-- name: ListChangesAfter :many
SELECT * FROM changes WHERE position > ? ORDER BY position;

-- name: TrimChanges :exec
DELETE FROM changes WHERE position < ?;

-- name: LastOutcome :one
SELECT CAST(ifnull(max(seq), 0) AS INTEGER) FROM command_outcomes;

-- name: ListOutcomes :many
SELECT * FROM command_outcomes WHERE id IN (sqlc.slice(ids));

-- name: TrimOutcomes :exec
DELETE FROM command_outcomes WHERE seq <= ?;

-- name: Term :one
SELECT term FROM fence;

-- name: SetTerm :exec
UPDATE fence SET term = ?;

-- name: RaiseBarrier :exec
UPDATE fence SET barrier = barrier + 1;
