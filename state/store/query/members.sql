-- name: ListMembers :many
SELECT * FROM members;

-- name: FindMember :one
SELECT * FROM members WHERE name = ?;

-- name: FindMemberByID :one
SELECT * FROM members WHERE id = ?;

-- name: InsertMember :exec
INSERT INTO members (id, name, address, architecture, description, config, certificate, created_at, revision, cpu, memory, disk, failure_domain, groups_in)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: UpdateMember :exec
UPDATE members SET address = ?, architecture = ?, description = ?, config = ?, certificate = ?, revision = ?, cpu = ?, memory = ?, disk = ?, failure_domain = ?, groups_in = ? WHERE name = ?;

-- name: RenameMember :exec
UPDATE members SET name = sqlc.arg(new_name), revision = sqlc.arg(revision) WHERE name = sqlc.arg(name);

-- name: DeleteMember :exec
DELETE FROM members WHERE name = ?;

-- name: TouchInstancesOfMember :exec
UPDATE instances SET revision = ? WHERE location = ?;

-- name: TouchVolumesOfMember :exec
UPDATE volumes SET revision = ? WHERE location = ?;

-- name: TouchIntentsOfMember :exec
UPDATE intents SET revision = ? WHERE member = ?;

-- name: TouchSettingsOfMember :exec
UPDATE member_settings SET revision = ? WHERE member = ?;

-- name: TouchImagesOfMember :exec
UPDATE images SET revision = ? WHERE (images.project, images.fingerprint) IN (SELECT m.project, m.fingerprint FROM image_members m WHERE m.member = ?);
