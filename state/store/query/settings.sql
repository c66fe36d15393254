-- name: ListClusterSettings :many
SELECT * FROM cluster_settings;

-- name: ListMemberSettings :many
SELECT * FROM member_settings;

-- name: SetClusterSetting :exec
INSERT INTO cluster_settings (key, value, revision) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision;

-- name: SetMemberSetting :exec
INSERT INTO member_settings (member, key, value, revision) VALUES (?, ?, ?, ?)
ON CONFLICT (member, key) DO UPDATE SET value = excluded.value, revision = excluded.revision;
