-- name: ListNetworks :many
SELECT * FROM networks;

-- name: FindNetwork :one
SELECT * FROM networks WHERE project = ? AND name = ?;

-- name: InsertNetwork :exec
INSERT INTO networks (project, name, description, type, config, busy, revision) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: UpdateNetwork :exec
UPDATE networks
SET name = sqlc.arg(new_name), description = sqlc.arg(description), config = sqlc.arg(config), busy = sqlc.arg(busy), revision = sqlc.arg(revision)
WHERE project = sqlc.arg(project) AND name = sqlc.arg(name);

-- name: DeleteNetwork :exec
DELETE FROM networks WHERE project = ? AND name = ?;
