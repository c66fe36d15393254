-- Named sets of members, which instances can be aimed at. Every member is in one at
-- least.
CREATE TABLE member_groups (
    name        TEXT    NOT NULL PRIMARY KEY,
    description TEXT    NOT NULL,
    revision    INTEGER NOT NULL
);
INSERT INTO member_groups (name, description, revision)
SELECT 'default', 'Default cluster group', 0 WHERE EXISTS (SELECT 1 FROM members);

ALTER TABLE members ADD COLUMN groups_in TEXT NOT NULL DEFAULT '["default"]';
