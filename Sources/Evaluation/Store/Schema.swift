// The results' tables. A figure of the report names the query behind it, so these names are for readers too.
import GRDB

enum Schema {
    /// Raised with every change of a table.
    static let version = 1

    static let migrator: DatabaseMigrator = {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { db in try db.execute(sql: tables) }
        return migrator
    }()

    // Times are milliseconds, sizes bytes, where a column's name says nothing else.
    private static let tables = """
        CREATE TABLE evaluation (            -- one row
            name TEXT NOT NULL, title TEXT NOT NULL, seed INTEGER NOT NULL,
            plan TEXT NOT NULL               -- the plan's YAML
        );
        CREATE TABLE point (                 -- one kind of run
            id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,
            technique TEXT NOT NULL, workload TEXT NOT NULL,
            memory_mib REAL NOT NULL,
            bandwidth_mbit REAL,             -- NULL: unlimited
            lambda REAL,                     -- dirty rate over bandwidth; NULL: not known
            dirty_mib_s REAL, working_set_percent REAL, share_percent REAL,
            handover TEXT NOT NULL, trigger_after_s REAL,
            events TEXT NOT NULL, event_pages INTEGER NOT NULL,
            min_spacing_ms REAL,             -- NULL: adaptive
            max_rounds INTEGER NOT NULL, round_interval_ms REAL, downtime_limit_ms REAL NOT NULL,
            parameters TEXT NOT NULL         -- the same as JSON
        );
        CREATE TABLE experiment_point (
            experiment TEXT NOT NULL, point INTEGER NOT NULL REFERENCES point, PRIMARY KEY (experiment, point)
        );
        CREATE TABLE session (               -- one start of `apus evaluate run`
            id INTEGER PRIMARY KEY, started_at TEXT NOT NULL,
            kernel TEXT NOT NULL, processor TEXT NOT NULL, processors INTEGER NOT NULL, memory INTEGER NOT NULL,
            runtime TEXT NOT NULL, load TEXT NOT NULL  -- /proc/loadavg before anything was started
        );
        CREATE TABLE run (                   -- one migration
            id INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES session,
            point INTEGER NOT NULL REFERENCES point, repetition INTEGER NOT NULL,
            started_at TEXT NOT NULL,
            passed INTEGER NOT NULL,         -- 1: migrated, and every verdict holds
            error TEXT,                      -- why it was not migrated, or what was wrong
            engine_downtime_ms REAL, workload_downtime_ms REAL, client_downtime_ms REAL,
            disturbance_ms REAL,             -- largest gap while copying
            migration_time_ms REAL,
            handover_ms REAL,                -- trigger of the handover to release
            in_sync_ms REAL,
            passes INTEGER, pages_sent INTEGER, bytes_sent INTEGER, state_bytes INTEGER, overhead REAL,
            last_pass_pages INTEGER, events TEXT,
            UNIQUE (point, repetition)
        );
        CREATE TABLE verdict (run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, name TEXT, passed INTEGER, detail TEXT);
        CREATE TABLE phase (run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, ordinal INTEGER, name TEXT, duration_ms REAL);
        CREATE TABLE pass (                  -- a round or a sync; the last one in the freeze
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, ordinal INTEGER, start_ms REAL, duration_ms REAL,
            pages INTEGER, bytes INTEGER
        );
        CREATE TABLE step (                  -- of the freeze
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, side TEXT, name TEXT, start_us REAL, duration_us REAL
        );
        CREATE TABLE mirror_age (run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, at_ms REAL, age_ms REAL);
        CREATE TABLE latency (               -- the client's requests
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, stretch TEXT, requests INTEGER, unanswered INTEGER,
            p50_ms REAL, p95_ms REAL, p99_ms REAL, p999_ms REAL, slowest_ms REAL
        );
        CREATE TABLE timeline (              -- each answer around the freeze; of the first repetition only
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, at_ms REAL, latency_ms REAL
        );
        CREATE INDEX pass_run ON pass (run);
        CREATE INDEX phase_run ON phase (run);
        CREATE INDEX step_run ON step (run);
        CREATE INDEX mirror_age_run ON mirror_age (run);
        CREATE INDEX timeline_run ON timeline (run);
        """
}
