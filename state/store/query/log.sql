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

-- name: LookUp :many
-- The outcomes of commands and, in every row, the newest of all: at least one row.
SELECT CAST((SELECT ifnull(max(n.seq), 0) FROM command_outcomes n) AS INTEGER) AS newest, o.id, o.revision, o.kind, o.message
FROM (SELECT 1) LEFT JOIN command_outcomes o ON o.id IN (sqlc.slice(ids));

-- name: TrimOutcomes :exec
DELETE FROM command_outcomes WHERE seq <= ?;

-- name: Term :one
SELECT term FROM fence;

-- name: SetTerm :exec
UPDATE fence SET term = ?;

-- name: RaiseBarrier :exec
UPDATE fence SET barrier = barrier + 1;
