// The results' tables. A figure of the report names the query behind it, so these names are for readers too.
import GRDB

enum Schema {
    static let migrator: DatabaseMigrator = {
        var migrator = DatabaseMigrator()
        // `point` has columns that follow from `Parameter`.
        migrator.registerMigration("4") { db in try db.execute(sql: tables) }
        migrator.registerMigration("5") { db in try db.execute(sql: mobilityLatency) }
        return migrator
    }()

    /// Makes the tables; refuses those of another version.
    static func prepare(_ database: DatabaseQueue) throws {
        guard try !database.read(migrator.hasBeenSuperseded) else { throw ResultError(otherVersion) }
        try migrator.migrate(database)
        let columns = try database.read { try $0.columns(in: "point").map(\.name) }
        guard Set(columns).isSuperset(of: Parameter.allCases.map(\.column)) else { throw ResultError(otherVersion) }
    }
    private static let otherVersion = "another version of apus made it: report with that one, or choose another file"

    private static let pointColumns = Parameter.allCases
        .map { "\($0.column) \($0.isNumeric ? "REAL" : "TEXT")" }.joined(separator: ", ")

    // Times are milliseconds, sizes bytes, where a column's name says nothing else.
    private static let tables = """
        CREATE TABLE evaluation (            -- one row
            name TEXT NOT NULL, title TEXT NOT NULL, seed INTEGER NOT NULL,
            plan TEXT NOT NULL               -- the plan's YAML
        );
        CREATE TABLE point (                 -- one kind of run; NULL: none (unlimited, adaptive), or without meaning here
            id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, \(pointColumns)
        );
        CREATE TABLE experiment_point (
            experiment TEXT NOT NULL, point INTEGER NOT NULL REFERENCES point, PRIMARY KEY (experiment, point)
        );
        CREATE TABLE session (               -- one start of `apus evaluate run`
            id INTEGER PRIMARY KEY, started_at TEXT NOT NULL,
            kernel TEXT NOT NULL, processor TEXT NOT NULL, processors INTEGER NOT NULL, memory INTEGER NOT NULL,
            runtime TEXT NOT NULL,
            services TEXT NOT NULL,          -- versions of the servers that are moved
            program TEXT NOT NULL,           -- SHA-256 of the apus program
            version TEXT NOT NULL,           -- commit of the working copy it was started in, "+ changes" if it had any; "": none
            boot TEXT NOT NULL,              -- the kernel's boot
            load TEXT NOT NULL,              -- /proc/loadavg before anything was started
            left_out TEXT NOT NULL           -- techniques that this machine does not have, with the reason
        );
        CREATE TABLE run (                   -- one migration; a run of the plan makes one or several
            id INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES session,
            point INTEGER NOT NULL REFERENCES point, repetition INTEGER NOT NULL,
            block INTEGER NOT NULL,          -- repetitions made together; at least an hour lies between two blocks
            attempt INTEGER NOT NULL,        -- above 1: earlier ones failed, and are kept
            move INTEGER NOT NULL,           -- the how-many-th migration of the run, from 1
            container TEXT NOT NULL, source TEXT NOT NULL, destination TEXT NOT NULL,
            started_at TEXT NOT NULL,
            passed INTEGER NOT NULL,         -- 1: migrated, and every verdict holds
            error TEXT,                      -- why it was not migrated, or what was wrong
            engine_downtime_ms REAL, workload_downtime_ms REAL, client_downtime_ms REAL,
            interruption_ms REAL,            -- of the user: downtime, and what the device needs to reach the new host
            disturbance_ms REAL,             -- largest gap while copying
            migration_time_ms REAL,
            handover_ms REAL,                -- trigger of the handover to release
            dirty_pages_s REAL,              -- pages of 4 KiB that the workload wrote a second, decision to freeze
            goodput_b_s REAL,                -- bytes a second of the first pass, which sends everything
            ran_ms_s REAL, waited_ms_s REAL, faults_s REAL, -- of the container's first process, decision to the wish to hand
                                             -- over: milliseconds a second that it ran, and was ready and waited for a
                                             -- processor; page faults a second
            preparation_ms REAL,             -- wish to hand over to the last passes
            ready_ms REAL,                   -- decision to the first time that the technique was ready
            passes INTEGER, pages_sent INTEGER, bytes_sent INTEGER, state_bytes INTEGER, overhead REAL,
            last_pass_pages INTEGER, events TEXT,
            source_cpu_s REAL, destination_cpu_s REAL, -- of the agents while the run migrates, shared equally by its moves
            UNIQUE (point, repetition, attempt, move)
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
        CREATE TABLE latency (               -- the client's requests before, while copying, during and after
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, stretch TEXT, requests INTEGER,
            unanswered INTEGER,              -- lost, or not answered by the end
            late INTEGER,                    -- answered after the service's deadline; NULL: it has none
            duplicated INTEGER,
            p50_ms REAL, p95_ms REAL, p99_ms REAL, p999_ms REAL, slowest_ms REAL
        );
        CREATE TABLE latency_bucket (        -- the same as a distribution: answers that took no longer, and than the last bucket's
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, stretch TEXT, latency_ms REAL, count INTEGER
        );
        CREATE TABLE timeline (              -- each answer around the freeze; of the first repetition only
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, at_ms REAL, latency_ms REAL
        );
        CREATE TABLE handoff (               -- a user device changed its access point
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, -- the first row of the run of the plan
            user TEXT, at_s REAL,            -- this and all other seconds: of the trace
            from_point TEXT, to_point TEXT,
            radio_ms REAL,                   -- the device had no link
            interruption_ms REAL,            -- the user got no answers, for this or for the migration that belongs to it
            was_local INTEGER,               -- 1: the service ran at the new access point when the device had joined it
            migration INTEGER,               -- row of run; NULL: none belongs to it
            zone_s REAL, decided_s REAL, released_s REAL,
            state TEXT,                      -- of the migration when the handoff came; NULL: it was not asked
            was_ready INTEGER                -- the technique had been ready when the handoff came
        );
        CREATE TABLE mobility_user (         -- a user's service over the whole run
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, user TEXT, trace TEXT,
            requests INTEGER, answered INTEGER, late INTEGER,
            largest_gap_ms REAL              -- between answers, outside handoffs and blackouts
        );
        CREATE TABLE mobility_event (
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, user TEXT, at_s REAL, event TEXT, distance_m REAL,
            action TEXT                      -- what was done about it
        );
        CREATE INDEX pass_run ON pass (run);
        CREATE INDEX phase_run ON phase (run);
        CREATE INDEX step_run ON step (run);
        CREATE INDEX mirror_age_run ON mirror_age (run);
        CREATE INDEX latency_run ON latency (run);
        CREATE INDEX latency_bucket_run ON latency_bucket (run);
        CREATE INDEX timeline_run ON timeline (run);
        """

    private static let mobilityLatency = """
        CREATE TABLE mobility_latency (      -- of a user's requests, by where the service was when they were due
            run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, user TEXT,
            stretch TEXT,                    -- near: on the host beside the device's access point; far: on another one;
                                             -- handoff: the device had no link, or the service stood still
            requests INTEGER, unanswered INTEGER,
            late INTEGER,                    -- answered after the service's deadline; NULL: it has none
            p50_ms REAL, p95_ms REAL, p99_ms REAL, slowest_ms REAL
        );
        CREATE INDEX mobility_latency_run ON mobility_latency (run);
        """
}
