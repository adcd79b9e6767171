-- Verification compares what the ledger and its rollups add up to in some thousand buckets, and
-- looks at single keys only in those that differ. Which keys share a bucket is another with each seed.
create function ai_bucket(port_id text, day date, feature text, provider text, model text, seed bigint) returns int
    language sql immutable parallel safe
    return (hashtextextended(port_id, hashtextextended(feature, hashtextextended(provider, hashtextextended(model,
        seed + (day - date '1970-01-01'))))) & 4095)::int;

-- Each change of a budget is kept in a stream too, so that a copy of this database that is put
-- back later is told what it lacks. Of two changes of a port the one with the higher version is
-- the later one: versions go on when a port is deleted and comes back.
create table ai_change_stream (
    only_row boolean primary key default true check (only_row),
    -- The stream that has the changes: its identity, null before there is one, and its last
    -- sequence, all of which is in this database. Whoever sends changes holds the row.
    id      uuid,
    through bigint not null default 0
);
insert into ai_change_stream default values;

-- The outbox: changes that the stream may not have. A row is written with the change.
create table ai_unsent_changes (
    change bigint primary key -- of system_settings_audit, whose rows never go
);

-- When a change was taken back from the stream; null: it was made here.
alter table system_settings_audit add column restored_at timestamptz;

-- A stream that is gone, for good or until a copy of it is put back: when another took its place, and
-- how many messages that it had taken were not booked by then, as far as was known.
alter table ai_usage_streams
    add column gone_at  timestamptz,
    add column unbooked bigint not null default 0;
