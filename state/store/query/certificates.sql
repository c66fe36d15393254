-- name: ListCertificates :many
SELECT * FROM certificates;

-- name: FindCertificate :one
SELECT * FROM certificates WHERE fingerprint = ?;

-- name: InsertCertificate :exec
INSERT INTO certificates (fingerprint, type, name, pem, restricted, projects, revision) VALUES (?, ?, ?, ?, ?, ?, ?);

-- name: UpdateCertificate :exec
UPDATE certificates
SET fingerprint = sqlc.arg(new_fingerprint), type = sqlc.arg(type), name = sqlc.arg(name), pem = sqlc.arg(pem),
    restricted = sqlc.arg(restricted), projects = sqlc.arg(projects), revision = sqlc.arg(revision)
WHERE fingerprint = sqlc.arg(fingerprint);

-- name: DeleteCertificate :exec
DELETE FROM certificates WHERE fingerprint = ?;
