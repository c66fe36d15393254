-- name: ListSnapshots :many
SELECT sqlc.embed(snapshots), i.project AS project_name, i.name AS instance_name
FROM snapshots JOIN instances i ON i.id = snapshots.instance;

-- name: ListSnapshotsOf :many
SELECT sqlc.embed(snapshots), i.project AS project_name, i.name AS instance_name
FROM snapshots JOIN instances i ON i.id = snapshots.instance
WHERE snapshots.instance = ? ORDER BY snapshots.name;

-- name: FindSnapshot :one
SELECT sqlc.embed(snapshots), i.project AS project_name, i.name AS instance_name
FROM snapshots JOIN instances i ON i.id = snapshots.instance
WHERE i.project = sqlc.arg(project) AND i.name = sqlc.arg(instance) AND snapshots.name = sqlc.arg(name);

-- name: FindBusySnapshot :one
SELECT name, busy FROM snapshots WHERE instance = ? AND busy <> '' LIMIT 1;

-- name: InsertSnapshot :execlastid
INSERT INTO snapshots (instance, name, architecture, description, ephemeral, stateful, config, devices, profiles, created_at, expires_at, busy, revision)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: UpdateSnapshot :exec
UPDATE snapshots SET name = ?, description = ?, expires_at = ?, busy = ?, revision = ? WHERE id = ?;

-- name: TouchSnapshotsOf :exec
UPDATE snapshots SET revision = ? WHERE instance = ?;

-- name: DeleteSnapshot :exec
DELETE FROM snapshots WHERE id = ?;
