-- The state plane from its first day. Identities are natural keys, so that rows
-- read like the nouns they hold, references are checked by the database, and a
-- rename travels to every row that mentions the name. Free-form maps and lists
-- are JSON; a time that was never set is NULL.

CREATE TABLE projects (
    name        TEXT    NOT NULL PRIMARY KEY,
    description TEXT    NOT NULL,
    config      TEXT    NOT NULL,
    revision    INTEGER NOT NULL
);

CREATE TABLE members (
    id           TEXT     NOT NULL PRIMARY KEY,
    name         TEXT     NOT NULL UNIQUE,
    address      TEXT     NOT NULL,
    architecture TEXT     NOT NULL,
    description  TEXT     NOT NULL,
    config       TEXT     NOT NULL,
    certificate  TEXT     NOT NULL,
    created_at   DATETIME NOT NULL,
    revision     INTEGER  NOT NULL
);

-- A key that is unset keeps its row with the empty value, so that the newest
-- revision of a scope never goes back.
CREATE TABLE cluster_settings (
    key      TEXT    NOT NULL PRIMARY KEY,
    value    TEXT    NOT NULL,
    revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE member_settings (
    member   TEXT    NOT NULL REFERENCES members (name) ON UPDATE CASCADE ON DELETE CASCADE,
    key      TEXT    NOT NULL,
    value    TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (member, key)
) WITHOUT ROWID;

CREATE TABLE certificates (
    fingerprint TEXT    NOT NULL PRIMARY KEY,
    type        TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    pem         TEXT    NOT NULL,
    restricted  BOOLEAN NOT NULL,
    projects    TEXT    NOT NULL,
    revision    INTEGER NOT NULL
);

CREATE TABLE tokens (
    id          TEXT     NOT NULL PRIMARY KEY,
    purpose     TEXT     NOT NULL,
    name        TEXT     NOT NULL,
    secret_hash TEXT     NOT NULL,
    restricted  BOOLEAN  NOT NULL,
    projects    TEXT     NOT NULL,
    created_at  DATETIME NOT NULL,
    expires_at  DATETIME,
    operation   TEXT     NOT NULL,
    revision    INTEGER  NOT NULL
);

CREATE TABLE profiles (
    project     TEXT    NOT NULL REFERENCES projects (name) ON UPDATE CASCADE,
    name        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    config      TEXT    NOT NULL,
    devices     TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    PRIMARY KEY (project, name)
);

-- AUTOINCREMENT, since what a host derives from the ID of an instance must not
-- come back with another instance.
CREATE TABLE instances (
    id           INTEGER  PRIMARY KEY AUTOINCREMENT,
    project      TEXT     NOT NULL REFERENCES projects (name) ON UPDATE CASCADE,
    name         TEXT     NOT NULL,
    location     TEXT     NOT NULL REFERENCES members (name) ON UPDATE CASCADE,
    architecture TEXT     NOT NULL,
    description  TEXT     NOT NULL,
    ephemeral    BOOLEAN  NOT NULL,
    stateful     BOOLEAN  NOT NULL,
    config       TEXT     NOT NULL,
    devices      TEXT     NOT NULL,
    status       TEXT     NOT NULL,
    created_at   DATETIME NOT NULL,
    last_used_at DATETIME,
    busy         TEXT     NOT NULL,
    revision     INTEGER  NOT NULL,
    UNIQUE (project, name)
);
CREATE INDEX instances_location ON instances (location);

CREATE TABLE instance_profiles (
    instance INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    project  TEXT    NOT NULL,
    profile  TEXT    NOT NULL,
    PRIMARY KEY (instance, position),
    FOREIGN KEY (project, profile) REFERENCES profiles (project, name) ON UPDATE CASCADE
) WITHOUT ROWID;
CREATE INDEX instance_profiles_profile ON instance_profiles (project, profile);

-- The profiles of a snapshot are names only: it may outlive them.
CREATE TABLE snapshots (
    id           INTEGER  PRIMARY KEY AUTOINCREMENT,
    instance     INTEGER  NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
    name         TEXT     NOT NULL,
    architecture TEXT     NOT NULL,
    description  TEXT     NOT NULL,
    ephemeral    BOOLEAN  NOT NULL,
    stateful     BOOLEAN  NOT NULL,
    config       TEXT     NOT NULL,
    devices      TEXT     NOT NULL,
    profiles     TEXT     NOT NULL,
    created_at   DATETIME NOT NULL,
    expires_at   DATETIME,
    busy         TEXT     NOT NULL,
    revision     INTEGER  NOT NULL,
    UNIQUE (instance, name)
);

CREATE TABLE images (
    project      TEXT     NOT NULL REFERENCES projects (name) ON UPDATE CASCADE,
    fingerprint  TEXT     NOT NULL,
    filename     TEXT     NOT NULL,
    size         INTEGER  NOT NULL,
    architecture TEXT     NOT NULL,
    type         TEXT     NOT NULL,
    public       BOOLEAN  NOT NULL,
    auto_update  BOOLEAN  NOT NULL,
    cached       BOOLEAN  NOT NULL,
    properties   TEXT     NOT NULL,
    profiles     TEXT     NOT NULL,
    split        BOOLEAN  NOT NULL,
    created_at   DATETIME,
    expires_at   DATETIME,
    last_used_at DATETIME,
    uploaded_at  DATETIME,
    source       TEXT     NOT NULL,
    revision     INTEGER  NOT NULL,
    PRIMARY KEY (project, fingerprint)
);

CREATE TABLE image_members (
    project     TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    member      TEXT NOT NULL REFERENCES members (name) ON UPDATE CASCADE,
    PRIMARY KEY (project, fingerprint, member),
    FOREIGN KEY (project, fingerprint) REFERENCES images (project, fingerprint) ON UPDATE CASCADE ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX image_members_member ON image_members (member);

CREATE TABLE image_aliases (
    project     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    target      TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    PRIMARY KEY (project, name),
    FOREIGN KEY (project, target) REFERENCES images (project, fingerprint) ON UPDATE CASCADE
) WITHOUT ROWID;
CREATE INDEX image_aliases_target ON image_aliases (project, target);

CREATE TABLE networks (
    project     TEXT    NOT NULL REFERENCES projects (name) ON UPDATE CASCADE,
    name        TEXT    NOT NULL,
    description TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    config      TEXT    NOT NULL,
    busy        TEXT    NOT NULL,
    revision    INTEGER NOT NULL,
    PRIMARY KEY (project, name)
);

CREATE TABLE pools (
    name        TEXT    NOT NULL PRIMARY KEY,
    description TEXT    NOT NULL,
    driver      TEXT    NOT NULL,
    config      TEXT    NOT NULL,
    busy        TEXT    NOT NULL,
    revision    INTEGER NOT NULL
);

-- A volume of a shared pool is on no member in particular: its location is NULL.
CREATE TABLE volumes (
    id          INTEGER  PRIMARY KEY,
    pool        TEXT     NOT NULL REFERENCES pools (name) ON UPDATE CASCADE,
    project     TEXT     NOT NULL REFERENCES projects (name) ON UPDATE CASCADE,
    type        TEXT     NOT NULL,
    name        TEXT     NOT NULL,
    description TEXT     NOT NULL,
    config      TEXT     NOT NULL,
    location    TEXT     REFERENCES members (name) ON UPDATE CASCADE,
    created_at  DATETIME NOT NULL,
    revision    INTEGER  NOT NULL
);
CREATE UNIQUE INDEX volumes_identity ON volumes (pool, project, type, name, ifnull(location, ''));
CREATE INDEX volumes_location ON volumes (location);

-- image is "project/fingerprint" of what an instance is being created from: it holds the
-- image until the instance has what it needs.
CREATE TABLE intents (
    id         TEXT     NOT NULL PRIMARY KEY,
    member     TEXT     NOT NULL REFERENCES members (name) ON UPDATE CASCADE,
    kind       TEXT     NOT NULL,
    project    TEXT     NOT NULL,
    subject    TEXT     NOT NULL,
    name       TEXT     NOT NULL,
    image      TEXT     NOT NULL,
    input      TEXT     NOT NULL,
    created_at DATETIME NOT NULL,
    revision   INTEGER  NOT NULL,
    UNIQUE (subject, project, name)
);

-- What happened, newest last, trimmed to a window. position is
-- revision * 65536 + the change's place in its command; body is a Record.
CREATE TABLE changes (
    position INTEGER NOT NULL PRIMARY KEY,
    body     TEXT    NOT NULL
);

-- What became of the newest commands, so that a repeated command is answered and
-- not run again. kind is empty for success.
CREATE TABLE command_outcomes (
    seq      INTEGER NOT NULL PRIMARY KEY,
    id       TEXT    NOT NULL UNIQUE,
    revision INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    message  TEXT    NOT NULL
);

-- One row: the newest coordinator term that was seen, and a cell that a barrier
-- writes to make sure that this is still the leader.
CREATE TABLE fence (
    id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    term    INTEGER NOT NULL,
    barrier INTEGER NOT NULL
);
INSERT INTO fence (id, term, barrier) VALUES (1, 0, 0);
