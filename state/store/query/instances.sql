-- The profiles come as one text, separated by slashes, which no name holds: one
-- answer for each instance instead of two.

-- name: ListInstances :many
SELECT sqlc.embed(instances),
    CAST(ifnull((SELECT group_concat(p.profile, '/') FROM (SELECT profile FROM instance_profiles WHERE instance = instances.id ORDER BY position) p), '') AS TEXT) AS profiles
FROM instances;

-- name: ListInstancesAt :many
SELECT sqlc.embed(instances),
    CAST(ifnull((SELECT group_concat(p.profile, '/') FROM (SELECT profile FROM instance_profiles WHERE instance = instances.id ORDER BY position) p), '') AS TEXT) AS profiles
FROM instances WHERE instances.revision = ?;

-- name: FindInstance :one
SELECT sqlc.embed(instances),
    CAST(ifnull((SELECT group_concat(p.profile, '/') FROM (SELECT profile FROM instance_profiles WHERE instance = instances.id ORDER BY position) p), '') AS TEXT) AS profiles
FROM instances WHERE instances.project = ? AND instances.name = ?;

-- name: InsertInstance :execlastid
INSERT INTO instances (project, name, location, architecture, description, ephemeral, stateful, config, devices, status, created_at, last_used_at, busy, revision, need_cpu, need_memory, need_disk)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: SumNeeds :one
SELECT CAST(ifnull(sum(need_cpu), 0) AS INTEGER) AS cpu, CAST(ifnull(sum(need_memory), 0) AS INTEGER) AS memory, CAST(ifnull(sum(need_disk), 0) AS INTEGER) AS disk
FROM instances WHERE location = ?;

-- name: UpdateInstance :exec
UPDATE instances
SET name = ?, location = ?, architecture = ?, description = ?, ephemeral = ?, config = ?, devices = ?, status = ?, last_used_at = ?, busy = ?, revision = ?,
    need_cpu = ?, need_memory = ?, need_disk = ?
WHERE id = ?;

-- name: UpdateInstanceState :exec
UPDATE instances SET config = ?, status = ?, last_used_at = ?, busy = ?, revision = ? WHERE id = ?;

-- name: DeleteInstance :exec
DELETE FROM instances WHERE id = ?;

-- name: InsertInstanceProfile :exec
INSERT INTO instance_profiles (instance, position, project, profile) VALUES (?, ?, ?, ?);

-- name: DeleteInstanceProfiles :exec
DELETE FROM instance_profiles WHERE instance = ?;

-- name: ListInstanceDevices :many
SELECT project, name, devices FROM instances WHERE devices <> '{}';
