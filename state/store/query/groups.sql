-- name: ListGroups :many
SELECT * FROM member_groups;

-- name: FindGroup :one
SELECT * FROM member_groups WHERE name = ?;

-- name: InsertGroup :exec
INSERT INTO member_groups (name, description, revision) VALUES (?, ?, ?);

-- name: UpdateGroup :exec
UPDATE member_groups SET name = sqlc.arg(new_name), description = sqlc.arg(description), revision = sqlc.arg(revision) WHERE name = sqlc.arg(name);

-- name: DeleteGroup :exec
DELETE FROM member_groups WHERE name = ?;
