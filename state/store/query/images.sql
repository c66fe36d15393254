-- The members come as one text, separated by slashes, which no name holds.

-- name: ListImages :many
SELECT sqlc.embed(images),
    CAST(ifnull((SELECT group_concat(m.member, '/') FROM (SELECT im.member FROM image_members im WHERE im.project = images.project AND im.fingerprint = images.fingerprint ORDER BY im.member) m), '') AS TEXT) AS members
FROM images;

-- name: FindImage :one
SELECT sqlc.embed(images),
    CAST(ifnull((SELECT group_concat(m.member, '/') FROM (SELECT im.member FROM image_members im WHERE im.project = images.project AND im.fingerprint = images.fingerprint ORDER BY im.member) m), '') AS TEXT) AS members
FROM images WHERE images.project = ? AND images.fingerprint = ?;

-- name: InsertImage :exec
INSERT INTO images (project, fingerprint, filename, size, architecture, type, public, auto_update, cached, properties, profiles, split, created_at, expires_at, last_used_at, uploaded_at, source, revision)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: UpdateImage :exec
UPDATE images
SET public = ?, auto_update = ?, properties = ?, profiles = ?, expires_at = ?, last_used_at = ?, revision = ?
WHERE project = ? AND fingerprint = ?;

-- name: DeleteImage :exec
DELETE FROM images WHERE project = ? AND fingerprint = ?;

-- name: InsertImageMember :exec
INSERT INTO image_members (project, fingerprint, member) VALUES (?, ?, ?);

-- name: DeleteImageMember :exec
DELETE FROM image_members WHERE project = ? AND fingerprint = ? AND member = ?;

-- name: FindImageHold :one
SELECT name FROM intents WHERE image = ? LIMIT 1;

-- name: ListAliases :many
SELECT * FROM image_aliases;

-- name: ListAliasesOf :many
SELECT * FROM image_aliases WHERE project = ? AND target = ? ORDER BY name;

-- name: FindAlias :one
SELECT * FROM image_aliases WHERE project = ? AND name = ?;

-- name: InsertAlias :exec
INSERT INTO image_aliases (project, name, description, target, revision) VALUES (?, ?, ?, ?, ?);

-- name: UpdateAlias :exec
UPDATE image_aliases
SET name = sqlc.arg(new_name), description = sqlc.arg(description), target = sqlc.arg(target), revision = sqlc.arg(revision)
WHERE project = sqlc.arg(project) AND name = sqlc.arg(name);

-- name: DeleteAlias :exec
DELETE FROM image_aliases WHERE project = ? AND name = ?;
