-- name: ListIntents :many
SELECT * FROM intents;

-- name: FindIntent :one
SELECT * FROM intents WHERE subject = ? AND project = ? AND name = ?;

-- name: FindIntentByID :one
SELECT * FROM intents WHERE id = ?;

-- name: InsertIntent :exec
INSERT INTO intents (id, member, kind, project, subject, name, image, input, created_at, revision)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: DeleteIntent :exec
DELETE FROM intents WHERE id = ?;
