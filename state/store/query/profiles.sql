-- name: ListProfiles :many
SELECT * FROM profiles;

-- name: FindProfile :one
SELECT * FROM profiles WHERE project = ? AND name = ?;

-- name: InsertProfile :exec
INSERT INTO profiles (project, name, description, config, devices, revision) VALUES (?, ?, ?, ?, ?, ?);

-- name: UpdateProfile :exec
UPDATE profiles SET description = ?, config = ?, devices = ?, revision = ? WHERE project = ? AND name = ?;

-- name: RenameProfile :exec
UPDATE profiles SET name = sqlc.arg(new_name), revision = sqlc.arg(revision)
WHERE project = sqlc.arg(project) AND name = sqlc.arg(name);

-- name: DeleteProfile :exec
DELETE FROM profiles WHERE project = ? AND name = ?;

-- name: ListProfileUsers :many
SELECT i.name FROM instance_profiles p JOIN instances i ON i.id = p.instance
WHERE p.project = ? AND p.profile = ?
ORDER BY i.name LIMIT ?;

-- name: TouchProfileUsers :exec
UPDATE instances SET revision = ? WHERE instances.id IN (SELECT p.instance FROM instance_profiles p WHERE p.project = ? AND p.profile = ?);

-- name: ListProfileDevices :many
SELECT project, name, devices FROM profiles;
