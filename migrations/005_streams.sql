-- Which ledger this is, and how far it has booked each usage stream.

-- One row. The id is written into the streams that this ledger books: another ledger
-- must not book from them. A copy of this database is the same ledger.
create table ai_ledger (
    only_row boolean primary key default true check (only_row),
    id       uuid    not null default gen_random_uuid(),
    -- The ledger is older than this table: its first stream was booked as far as it is
    -- acknowledged. Used once.
    predates_streams boolean not null,
    -- Months before this one were dropped. Their ids are gone, so nothing of that time may be
    -- booked any more, whatever the retention is raised to.
    dropped_before date
);
insert into ai_ledger (predates_streams) select exists (select from ai_usage_totals);

-- The sequences of a stream whose events are all in the ledger, or were refused and so are
-- in the quarantine or still unacknowledged. A message is acknowledged only after its
-- sequence is in here or in ai_booked_shares, in the same transaction as its events: if
-- the stream acknowledges more than is booked here, this database is older than the stream.
create table ai_usage_streams (
    id         uuid           primary key, -- written into the stream when it was made or claimed
    booked     int8multirange not null default '{[0,1)}',
    first_seen timestamptz    not null default now(),
    -- The consumer that books again what is missing, and until when others leave it to it.
    rebooking_by    uuid,
    rebooking_until timestamptz
);

-- What bookings add to ai_usage_streams.booked, until somebody folds it in: a row of each
-- booking's own, so that none waits for another. A batch's sequences count once all of its
-- shares are here, since a message's events may be booked by different writers.
create table ai_booked_shares (
    stream_id uuid           not null,
    batch_id  uuid           not null,
    share     smallint       not null,
    shares    smallint       not null,
    sequences int8multirange not null,
    booked_at timestamptz    not null default now(),
    primary key (stream_id, batch_id, share)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- When messages of a stream were stored, one an hour: a stream that was restored from a
-- backup uses sequences a second time, and is booked only as far as it is the same stream.
create table ai_stream_marks (
    stream_id uuid        not null references ai_usage_streams on delete cascade,
    hour      timestamptz not null,
    sequence  bigint      not null,
    stored_at timestamptz not null,
    primary key (stream_id, hour)
);
