-- schema.sql - everything that opensession.py keeps in SQLite, as it is today.
--
-- Later changes are numbered steps in opensession.py (MIGRATIONS); this file is
-- always their sum.  Times are text in UTC, 2026-02-11T06:00:00.000Z, so that
-- they sort as they read.  Event bodies are not here but in files; see blocks.

-- Facts about this data directory: schema version, set-up token, daemon settings.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- `sync` rises with every insert, update and removal of a session; clients pull by it.
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;

-- A batch may start with what must hold: "INSERT INTO must SELECT 0 WHERE NOT …".
-- Where it does not hold, that row breaks the check and the whole batch is undone.
CREATE TABLE must (
    holds INTEGER NOT NULL CHECK (holds)
) STRICT;

CREATE TABLE users (
    id         TEXT PRIMARY KEY,
    nickname   TEXT NOT NULL UNIQUE,
    is_admin   INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL
) STRICT;

-- API keys.  Only the SHA-256 is kept; `prefix` is for people to tell keys apart.
CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY,
    user_id      TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    name         TEXT NOT NULL,
    hash         TEXT NOT NULL UNIQUE,
    prefix       TEXT NOT NULL,
    scope        TEXT NOT NULL CHECK (scope IN ('full', 'read', 'upload')),
    created_at   TEXT NOT NULL,
    last_used_on TEXT
) STRICT;
CREATE INDEX api_keys_of_user ON api_keys (user_id);

-- Browser log-ins.  The cookie holds the token, we hold its SHA-256.  A log-in dies with its key.
CREATE TABLE logins (
    hash       TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    key_id     TEXT NOT NULL REFERENCES api_keys ON DELETE CASCADE,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    last_used_on TEXT
) STRICT;
CREATE INDEX logins_of_key ON logins (key_id);
CREATE INDEX logins_of_user ON logins (user_id);

CREATE TABLE teams (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    description TEXT,
    is_public   INTEGER NOT NULL DEFAULT 0,
    created_by  TEXT REFERENCES users ON DELETE SET NULL,
    created_at  TEXT NOT NULL,
    retain_days INTEGER,                    -- sessions without activity for so long are deleted; NULL: never
    quota_mb    INTEGER,                    -- how much room sessions may take; NULL: as there is
    stored_bytes INTEGER NOT NULL DEFAULT 0, -- how much they take: their committed bytes,
    stored_sessions INTEGER NOT NULL DEFAULT 0 -- and how many they are; kept by the triggers below
) STRICT;
CREATE INDEX public_teams ON teams (id) WHERE is_public;

-- Roles: admin (settings, members, all sessions), member (reads, uploads), viewer (reads).
CREATE TABLE team_members (
    team_id   TEXT NOT NULL REFERENCES teams ON DELETE CASCADE,
    user_id   TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    role      TEXT NOT NULL CHECK (role IN ('admin', 'member', 'viewer')),
    joined_at TEXT NOT NULL,
    PRIMARY KEY (team_id, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX teams_of_user ON team_members (user_id);

-- One-time codes to register with and, where a team is named, to join it.
CREATE TABLE invitations (
    id         TEXT PRIMARY KEY,
    hash       TEXT NOT NULL UNIQUE,
    team_id    TEXT REFERENCES teams ON DELETE CASCADE,
    role       TEXT NOT NULL CHECK (role IN ('admin', 'member', 'viewer')),
    created_by TEXT REFERENCES users ON DELETE SET NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    used_by    TEXT REFERENCES users ON DELETE SET NULL,
    used_at    TEXT
) STRICT;

-- One row a session: header facts, counts, and where its events lie.
CREATE TABLE sessions (
    id                  TEXT PRIMARY KEY,
    user_id             TEXT REFERENCES users ON DELETE SET NULL,
    team_id             TEXT NOT NULL REFERENCES teams,
    tool                TEXT NOT NULL,
    hail_id             TEXT NOT NULL,      -- the session_id that the tool gave
    parent_hail_id      TEXT,               -- the session that started this one
    listed              INTEGER NOT NULL,   -- not empty, not a helper, not below a parent that is here
    agent_provider      TEXT,
    agent_model         TEXT,
    title               TEXT,
    own_title           TEXT,               -- given by a person here; `title` is it where there is one
    tags                TEXT,               -- joined by commas, as the original has it
    project             TEXT,
    git_branch          TEXT,
    created_at          TEXT NOT NULL,
    updated_at          TEXT NOT NULL,      -- the last activity in the session
    uploaded_at         TEXT NOT NULL,
    -- Counts, ours: computed from the events.
    event_count         INTEGER NOT NULL,
    message_count       INTEGER NOT NULL,
    user_message_count  INTEGER NOT NULL,
    task_count          INTEGER NOT NULL,
    error_count         INTEGER NOT NULL,
    duration_seconds    INTEGER NOT NULL,
    total_input_tokens  INTEGER NOT NULL,
    total_output_tokens INTEGER NOT NULL,
    files_changed       INTEGER NOT NULL,
    lines_added         INTEGER NOT NULL,
    lines_removed       INTEGER NOT NULL,
    -- The body: the file's name, its committed length and the length of what it holds.
    revision            INTEGER NOT NULL,   -- rises when stored events change, not when they grow
    sync_no             INTEGER NOT NULL UNIQUE,
    body                TEXT NOT NULL UNIQUE,
    file_bytes          INTEGER NOT NULL,
    raw_bytes           INTEGER NOT NULL,
    chain               TEXT NOT NULL,      -- content identity, hex; see next_chain
    -- The long ones stand last, so that what filters and sorts need is read without them.
    description         TEXT,
    header              TEXT NOT NULL,      -- the HAIL header as sent, without the id and the type
    stats               TEXT NOT NULL,      -- the counts with what they need to grow, JSON
    step_kinds          TEXT,               -- how many steps of each kind, JSON; NULL where they are yet to be counted
    active_ms           INTEGER NOT NULL DEFAULT 0,     -- how long something went on in it, counted with the steps
    stretches           TEXT,               -- when that was: [[from, to], …] in ms since 1970, JSON; see stretches_of
    UNIQUE (user_id, tool, hail_id)         -- NULLs differ: sessions of deleted users never clash
) STRICT;
CREATE INDEX sessions_by_sync ON sessions (team_id, sync_no);
CREATE INDEX sessions_by_parent ON sessions (user_id, tool, parent_hail_id) WHERE parent_hail_id IS NOT NULL;
CREATE INDEX sessions_uncounted ON sessions (id) WHERE step_kinds IS NULL;

-- Lists: an index for each filter and sort; see FILTERS and SORTS.  Those by time hold all that
-- filters need, so that several filters at once, totals and facets are read from them alone.
CREATE INDEX list_all_recent ON sessions (team_id, updated_at DESC, tool, user_id, project, agent_model, git_branch)
    WHERE listed;
CREATE INDEX list_all_popular ON sessions (team_id, message_count DESC, updated_at DESC) WHERE listed;
CREATE INDEX list_all_longest ON sessions (team_id, duration_seconds DESC, updated_at DESC) WHERE listed;
CREATE INDEX list_tool_recent ON sessions (team_id, tool, updated_at DESC, user_id, project, agent_model, git_branch)
    WHERE listed;
CREATE INDEX list_tool_popular ON sessions (team_id, tool, message_count DESC, updated_at DESC) WHERE listed;
CREATE INDEX list_tool_longest ON sessions (team_id, tool, duration_seconds DESC, updated_at DESC) WHERE listed;
CREATE INDEX list_user_id_recent ON sessions (team_id, user_id, updated_at DESC, tool, project, agent_model, git_branch)
    WHERE listed AND user_id IS NOT NULL;
CREATE INDEX list_user_id_popular ON sessions (team_id, user_id, message_count DESC, updated_at DESC) WHERE listed AND user_id IS NOT NULL;
CREATE INDEX list_user_id_longest ON sessions (team_id, user_id, duration_seconds DESC, updated_at DESC) WHERE listed AND user_id IS NOT NULL;
CREATE INDEX list_project_recent ON sessions (team_id, project, updated_at DESC, tool, user_id, agent_model, git_branch)
    WHERE listed AND project IS NOT NULL;
CREATE INDEX list_project_popular ON sessions (team_id, project, message_count DESC, updated_at DESC) WHERE listed AND project IS NOT NULL;
CREATE INDEX list_project_longest ON sessions (team_id, project, duration_seconds DESC, updated_at DESC) WHERE listed AND project IS NOT NULL;
CREATE INDEX list_model_recent ON sessions (team_id, agent_model, updated_at DESC, tool, user_id, project, git_branch)
    WHERE listed AND agent_model IS NOT NULL;
CREATE INDEX list_model_popular ON sessions (team_id, agent_model, message_count DESC, updated_at DESC) WHERE listed AND agent_model IS NOT NULL;
CREATE INDEX list_model_longest ON sessions (team_id, agent_model, duration_seconds DESC, updated_at DESC) WHERE listed AND agent_model IS NOT NULL;
CREATE INDEX list_branch_recent ON sessions (team_id, git_branch, updated_at DESC, tool, user_id, project, agent_model)
    WHERE listed AND git_branch IS NOT NULL;
CREATE INDEX list_branch_popular ON sessions (team_id, git_branch, message_count DESC, updated_at DESC) WHERE listed AND git_branch IS NOT NULL;
CREATE INDEX list_branch_longest ON sessions (team_id, git_branch, duration_seconds DESC, updated_at DESC) WHERE listed AND git_branch IS NOT NULL;

-- How many listed sessions a team has: in all, and for each value of each filter.  Kept by the triggers below.
CREATE TABLE facets (
    team_id  TEXT NOT NULL,
    name     TEXT NOT NULL,                 -- 'all' (value ''), or a filter
    value    TEXT NOT NULL,
    sessions INTEGER NOT NULL,
    PRIMARY KEY (team_id, name, value)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER facets_insert AFTER INSERT ON sessions WHEN new.listed BEGIN
    INSERT INTO facets (team_id, name, value, sessions)
    SELECT new.team_id, column1, column2, 1
      FROM (VALUES ('all', ''), ('tool', new.tool), ('user_id', new.user_id),
            ('project', new.project), ('model', new.agent_model), ('branch', new.git_branch))
     WHERE column2 IS NOT NULL
        ON CONFLICT DO UPDATE SET sessions = sessions + 1;
END;
CREATE TRIGGER facets_delete AFTER DELETE ON sessions WHEN old.listed BEGIN
    UPDATE facets SET sessions = sessions - 1
     WHERE team_id = old.team_id AND (name, value) IN
           (VALUES ('all', ''), ('tool', old.tool), ('user_id', old.user_id),
            ('project', old.project), ('model', old.agent_model), ('branch', old.git_branch));
END;
CREATE TRIGGER facets_leave AFTER UPDATE ON sessions
WHEN old.listed AND (new.listed, new.team_id, new.tool, new.user_id, new.project, new.agent_model, new.git_branch)
      IS NOT (old.listed, old.team_id, old.tool, old.user_id, old.project, old.agent_model, old.git_branch) BEGIN
    UPDATE facets SET sessions = sessions - 1
     WHERE team_id = old.team_id AND (name, value) IN
           (VALUES ('all', ''), ('tool', old.tool), ('user_id', old.user_id),
            ('project', old.project), ('model', old.agent_model), ('branch', old.git_branch));
END;
CREATE TRIGGER facets_enter AFTER UPDATE ON sessions
WHEN new.listed AND (new.listed, new.team_id, new.tool, new.user_id, new.project, new.agent_model, new.git_branch)
      IS NOT (old.listed, old.team_id, old.tool, old.user_id, old.project, old.agent_model, old.git_branch) BEGIN
    INSERT INTO facets (team_id, name, value, sessions)
    SELECT new.team_id, column1, column2, 1
      FROM (VALUES ('all', ''), ('tool', new.tool), ('user_id', new.user_id),
            ('project', new.project), ('model', new.agent_model), ('branch', new.git_branch))
     WHERE column2 IS NOT NULL
        ON CONFLICT DO UPDATE SET sessions = sessions + 1;
END;

-- How many sessions a team has, and what they take of its quota.
CREATE TRIGGER stored_insert AFTER INSERT ON sessions BEGIN
    UPDATE teams SET stored_bytes = stored_bytes + new.file_bytes, stored_sessions = stored_sessions + 1 WHERE id = new.team_id;
END;
CREATE TRIGGER stored_delete AFTER DELETE ON sessions BEGIN
    UPDATE teams SET stored_bytes = stored_bytes - old.file_bytes, stored_sessions = stored_sessions - 1 WHERE id = old.team_id;
END;
CREATE TRIGGER stored_update AFTER UPDATE OF file_bytes, team_id ON sessions
WHEN (old.file_bytes, old.team_id) IS NOT (new.file_bytes, new.team_id) BEGIN
    UPDATE teams SET stored_bytes = stored_bytes - old.file_bytes, stored_sessions = stored_sessions - 1 WHERE id = old.team_id;
    UPDATE teams SET stored_bytes = stored_bytes + new.file_bytes, stored_sessions = stored_sessions + 1 WHERE id = new.team_id;
END;

-- The index of a body: runs of events that can be inflated on their own.
CREATE TABLE blocks (
    session_id    TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
    first_ordinal INTEGER NOT NULL,
    event_count   INTEGER NOT NULL,
    raw_offset    INTEGER NOT NULL,
    raw_bytes     INTEGER NOT NULL,
    file_offset   INTEGER NOT NULL,
    file_bytes    INTEGER NOT NULL,
    chain         TEXT NOT NULL,            -- at the end of the block
    stats         TEXT NOT NULL,            -- of the events in the block, JSON; '' in the only block of a session, which has them
    turns         TEXT NOT NULL,            -- the outline of the block, JSON; see TURN
    marks         BLOB NOT NULL,            -- a fixed record for each event; see MARK
    secrets       INTEGER,                  -- events in it that hold one; NULL where nobody has looked
    PRIMARY KEY (session_id, first_ordinal)
) STRICT;
CREATE INDEX blocks_to_check ON blocks (session_id, first_ordinal) WHERE secrets IS NULL;
CREATE INDEX blocks_with_secrets ON blocks (session_id, secrets) WHERE secrets > 0;

-- Sessions in which secrets were masked here: an uploader with older rules would bring them back.
CREATE TABLE remasked (
    session_id    TEXT PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    rules_version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Search.  A row for each event, and one for the title of each session, in `search_index`.
-- Its rowid is search_no + ordinal (the title's is the last of those kept for the session), so
-- that rowids are in the order of time, and close together: they take a third of the index.
-- The table keeps no text, only where words stand.  opensession.py prepares the words (see
-- `searchable`), before which `text` has marks such as the team, to narrow a search; `about` has
-- the path that an event touches, or a session's description, tags and so on.
CREATE VIRTUAL TABLE search_index USING fts5(text, about, content = '', columnsize = 0, tokenize = 'ascii');
CREATE VIRTUAL TABLE search_words USING fts5vocab('search_index', 'instance');

-- What the index holds of each session.  Whoever searches joins this, and triggers keep it true
-- within every change of a session, so that nothing shows which is gone, elsewhere or not yet there.
CREATE TABLE indexed (
    search_no  INTEGER PRIMARY KEY,         -- the second in which the session began × 256, or the next place with room
    room       INTEGER NOT NULL,            -- so many rowids are kept for it
    session_id TEXT UNIQUE,                 -- NULL: it is no longer here, but its rows are yet to be taken out
    team_id    TEXT NOT NULL,               -- where the session is now
    indexed_to INTEGER NOT NULL DEFAULT 0,  -- events before this one are there
    pending    INTEGER NOT NULL DEFAULT 1,  -- changes since they were last brought up to date
    scope      TEXT NOT NULL DEFAULT '',    -- the marks with which they are there
    title      TEXT,                        -- the words of the title's row, NULL where there is none
    about      TEXT
) STRICT;
CREATE INDEX indexed_pending ON indexed (search_no) WHERE pending > 0;

-- Rows to take out of the index: of events that were replaced, moved or deleted.  SQLite takes
-- a row out only against its old text, so `body` stays on the disk until this is done.
CREATE TABLE unindexed (
    no            INTEGER PRIMARY KEY,
    search_no     INTEGER NOT NULL,
    room          INTEGER NOT NULL,
    scope         TEXT NOT NULL,
    title         TEXT,
    about         TEXT,
    body          TEXT NOT NULL,
    file_bytes    INTEGER NOT NULL,
    file_offset   INTEGER NOT NULL,         -- where a block begins,
    block_ordinal INTEGER NOT NULL,         -- and its first event
    first_ordinal INTEGER NOT NULL,         -- events from this one
    end_ordinal   INTEGER NOT NULL          -- to before this one
) STRICT;
CREATE INDEX unindexed_bodies ON unindexed (body);
CREATE INDEX unindexed_places ON unindexed (search_no);

-- What is inserted here gets a place in the index: the first one from its time on with room for its
-- events and as many to come that it rarely has to move.  The place that it had before is left.
CREATE VIEW placing AS SELECT id AS session_id, team_id, created_at, event_count FROM sessions;
CREATE TRIGGER place_session INSTEAD OF INSERT ON placing BEGIN
    UPDATE indexed SET session_id = NULL, team_id = '', pending = 0 WHERE session_id = new.session_id;
    INSERT INTO indexed (session_id, team_id, room, search_no)
    WITH wanted (no, room) AS (
        SELECT min(max(CAST(strftime('%s', new.created_at) AS INTEGER), 0), 4294967295) * 256,
               256 << (SELECT min(column1) FROM (VALUES (0), (2), (4), (6), (8), (10), (12), (14), (16), (18))
                        WHERE 256 << column1 > new.event_count))
    SELECT new.session_id, new.team_id, w.room, CASE
           WHEN coalesce((SELECT search_no + room FROM indexed WHERE search_no < w.no + w.room ORDER BY search_no DESC LIMIT 1), 0)
                <= w.no THEN w.no ELSE
           (SELECT i.search_no + i.room FROM indexed i
             WHERE i.search_no >= coalesce((SELECT max(search_no) FROM indexed WHERE search_no <= w.no), 0)
               AND i.search_no + i.room >= w.no
               AND NOT EXISTS (SELECT 1 FROM indexed WHERE search_no >= i.search_no + i.room
                                                       AND search_no < i.search_no + i.room + w.room)
             ORDER BY i.search_no LIMIT 1) END
      FROM wanted w;
END;

-- Whatever changes a session, the index hears of it.  (A replaced body says itself from where; see unindex_from.)
CREATE TRIGGER session_added AFTER INSERT ON sessions BEGIN
    INSERT INTO placing VALUES (new.id, new.team_id, new.created_at, new.event_count);
END;
CREATE TRIGGER session_changed
    AFTER UPDATE OF event_count, team_id, user_id, tool, title, description, tags, project, git_branch, header ON sessions
    WHEN (old.event_count, old.team_id, old.user_id, old.tool, old.title, old.description, old.tags, old.project, old.git_branch, old.header)
      IS NOT (new.event_count, new.team_id, new.user_id, new.tool, new.title, new.description, new.tags, new.project, new.git_branch, new.header)
BEGIN
    UPDATE indexed SET pending = pending + 1, team_id = new.team_id WHERE session_id = new.id;
END;
CREATE TRIGGER session_outgrown AFTER UPDATE OF event_count ON sessions
WHEN new.event_count >= (SELECT room FROM indexed WHERE session_id = new.id) BEGIN
    INSERT INTO unindexed (search_no, room, scope, title, about, body, file_bytes, file_offset, block_ordinal, first_ordinal, end_ordinal)
    SELECT search_no, room, scope, title, about, old.body, old.file_bytes, 10, 0, 0, indexed_to
      FROM indexed WHERE session_id = new.id AND (indexed_to > 0 OR title IS NOT NULL);
    DELETE FROM indexed WHERE session_id = new.id AND NOT EXISTS (SELECT 1 FROM unindexed u WHERE u.search_no = indexed.search_no);
    INSERT INTO placing VALUES (new.id, new.team_id, new.created_at, new.event_count);
END;
CREATE TRIGGER session_removed BEFORE DELETE ON sessions BEGIN
    INSERT INTO unindexed (search_no, room, scope, title, about, body, file_bytes, file_offset, block_ordinal, first_ordinal, end_ordinal)
    SELECT search_no, room, scope, title, about, old.body, old.file_bytes, 10, 0, 0, indexed_to
      FROM indexed WHERE session_id = old.id AND (indexed_to > 0 OR title IS NOT NULL);
    DELETE FROM indexed WHERE session_id = old.id AND NOT EXISTS (SELECT 1 FROM unindexed u WHERE u.search_no = indexed.search_no);
    UPDATE indexed SET session_id = NULL, team_id = '', pending = 0 WHERE session_id = old.id;
END;

-- Sessions that left a team, so that pulling clients hear of it.
CREATE TABLE removals (
    sync_no    INTEGER PRIMARY KEY,
    team_id    TEXT NOT NULL,
    session_id TEXT NOT NULL
) STRICT;
CREATE INDEX removals_by_sync ON removals (team_id, sync_no);

-- Sessions that a person deleted: a later upload of one is refused.
CREATE TABLE tombstones (
    user_id    TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    tool       TEXT NOT NULL,
    hail_id    TEXT NOT NULL,
    deleted_at TEXT NOT NULL,
    PRIMARY KEY (user_id, tool, hail_id)
) STRICT, WITHOUT ROWID;

-- Who did what to which object: ids only.  Never titles, never keys.
CREATE TABLE audit (
    no      INTEGER PRIMARY KEY,
    at      TEXT NOT NULL,
    user_id TEXT,                           -- NULL: the operator, or nobody who is known
    address TEXT,
    action  TEXT NOT NULL,
    object  TEXT,
    team_id TEXT                            -- whose admins may read of it
) STRICT;
CREATE INDEX audit_of_team ON audit (team_id, no) WHERE team_id IS NOT NULL;
CREATE INDEX audit_by_time ON audit (at);
