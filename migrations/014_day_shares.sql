-- A port's usage by user or by run in a day that is over, so that reports need not read the
-- ledger for it. Made when a report needs it; bookings know nothing of it. It counts for as
-- long as it has the calls and tokens that ai_usage_port_days has, so that an event which is
-- booked late makes it void by itself. The arrays go together: one entry for each key.
create table ai_usage_day_shares (
    port_id       text     collate "C" not null references ports on delete cascade,
    dimension     text     not null check (dimension in ('user', 'run')),
    day           date     not null,
    requests      bigint   not null,
    total_tokens  bigint   not null,
    keys          text[]   not null,
    calls         bigint[] not null,
    input_tokens  bigint[] not null,
    output_tokens bigint[] not null,
    asked_at      timestamptz, -- when a report needed it; null: made in advance
    primary key (port_id, dimension, day)
);
