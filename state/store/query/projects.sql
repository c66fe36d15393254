-- name: ListProjects :many
SELECT * FROM projects;

-- name: FindProject :one
SELECT * FROM projects WHERE name = ?;

-- name: InsertProject :exec
INSERT INTO projects (name, description, config, revision) VALUES (?, ?, ?, ?);

-- name: UpdateProject :exec
UPDATE projects SET description = ?, config = ?, revision = ? WHERE name = ?;

-- name: DeleteProject :exec
DELETE FROM projects WHERE name = ?;

-- name: CountProjectContents :one
SELECT
    (SELECT count(*) FROM instances WHERE instances.project = sqlc.arg(name)) AS instances,
    (SELECT count(*) FROM images WHERE images.project = sqlc.arg(name)) AS images,
    (SELECT count(*) FROM networks WHERE networks.project = sqlc.arg(name)) AS networks,
    (SELECT count(*) FROM volumes WHERE volumes.project = sqlc.arg(name)) AS volumes,
    (SELECT count(*) FROM intents WHERE intents.project = sqlc.arg(name)) AS intents,
    (SELECT count(*) FROM profiles WHERE profiles.project = sqlc.arg(name) AND profiles.name <> 'default') AS profiles;
