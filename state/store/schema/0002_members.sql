-- What a storage pool or network is on each member. Where one was before, it is on the
-- member that began the cluster, and its whole configuration is copied there: the keys
-- that differ from member to member are read from here.
CREATE TABLE locals (
    kind    TEXT NOT NULL,
    project TEXT NOT NULL,
    name    TEXT NOT NULL,
    member  TEXT NOT NULL REFERENCES members (name) ON UPDATE CASCADE ON DELETE CASCADE,
    status  TEXT NOT NULL,
    config  TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (kind, project, name, member)
) WITHOUT ROWID;
CREATE INDEX locals_member ON locals (member);

INSERT INTO locals (kind, project, name, member, status, config, message)
SELECT 'pool', '', p.name, m.name, CASE p.busy WHEN 'create' THEN 'Creating' WHEN 'delete' THEN 'Deleting' ELSE 'Created' END, p.config, ''
FROM pools p, members m WHERE m.id = (SELECT id FROM members ORDER BY created_at, id LIMIT 1);

INSERT INTO locals (kind, project, name, member, status, config, message)
SELECT 'network', n.project, n.name, m.name, CASE n.busy WHEN 'create' THEN 'Creating' WHEN 'delete' THEN 'Deleting' ELSE 'Created' END, n.config, ''
FROM networks n, members m WHERE m.id = (SELECT id FROM members ORDER BY created_at, id LIMIT 1);

DELETE FROM intents WHERE subject = 'pool' OR subject = 'network' AND kind IN ('create', 'delete');

-- What a member has to give, and where it stands: cpu is in thousandths of a processor,
-- memory and disk are bytes. Zero is not known.
ALTER TABLE members ADD COLUMN cpu INTEGER NOT NULL DEFAULT 0;
ALTER TABLE members ADD COLUMN memory INTEGER NOT NULL DEFAULT 0;
ALTER TABLE members ADD COLUMN disk INTEGER NOT NULL DEFAULT 0;
ALTER TABLE members ADD COLUMN failure_domain TEXT NOT NULL DEFAULT 'default';

-- What an instance is counted for on its member, in the same units.
ALTER TABLE instances ADD COLUMN need_cpu INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN need_memory INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN need_disk INTEGER NOT NULL DEFAULT 0;
