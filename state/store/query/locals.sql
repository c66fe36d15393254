-- name: ListLocals :many
SELECT * FROM locals WHERE kind = ? ORDER BY project, name;

-- name: ListLocalsOf :many
SELECT * FROM locals WHERE kind = ? AND project = ? AND name = ?;

-- name: ListLocalsOfMember :many
SELECT * FROM locals WHERE member = ?;

-- name: InsertLocal :exec
INSERT INTO locals (kind, project, name, member, status, config, message) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: DeleteLocals :exec
DELETE FROM locals WHERE kind = ? AND project = ? AND name = ?;

-- name: RenameLocals :exec
UPDATE locals SET name = sqlc.arg(new_name) WHERE kind = sqlc.arg(kind) AND project = sqlc.arg(project) AND name = sqlc.arg(name);
