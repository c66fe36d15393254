-- name: ListPools :many
SELECT * FROM pools;

-- name: FindPool :one
SELECT * FROM pools WHERE name = ?;

-- name: InsertPool :exec
INSERT INTO pools (name, description, driver, config, busy, revision) VALUES (?, ?, ?, ?, ?, ?);

-- name: UpdatePool :exec
UPDATE pools SET description = ?, config = ?, busy = ?, revision = ? WHERE name = ?;

-- name: DeletePool :exec
DELETE FROM pools WHERE name = ?;

-- name: ListVolumes :many
SELECT * FROM volumes;

-- name: ListVolumesOfPool :many
SELECT * FROM volumes WHERE pool = ? ORDER BY type, project, name;

-- name: ListVolumesOfInstance :many
SELECT * FROM volumes WHERE project = ? AND type = 'container' AND name = ?;

-- name: FindVolume :one
SELECT * FROM volumes WHERE pool = ? AND project = ? AND type = ? AND name = ? AND ifnull(location, '') = CAST(sqlc.arg(location) AS TEXT);

-- name: InsertVolume :exec
INSERT INTO volumes (pool, project, type, name, description, config, location, created_at, revision)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: UpdateVolume :exec
UPDATE volumes SET name = ?, description = ?, config = ?, revision = ?, location = ? WHERE id = ?;

-- name: DeleteVolume :exec
DELETE FROM volumes WHERE id = ?;
