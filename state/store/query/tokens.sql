-- name: ListTokens :many
SELECT * FROM tokens;

-- name: FindToken :one
SELECT * FROM tokens WHERE id = ?;

-- name: InsertToken :exec
INSERT INTO tokens (id, purpose, name, secret_hash, restricted, projects, created_at, expires_at, operation, revision)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: DeleteToken :exec
DELETE FROM tokens WHERE id = ?;
