-- The ledger, its two rollups, and the settings that hold budgets.

-- Keys are compared byte by byte (collate "C"): in a database of a human language
-- the same rows cost Postgres a fifth more, and its order is not Go's.

create table ports (
    id         text collate "C" primary key check (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    name       text not null default '',
    created_at timestamptz not null default now()
);

-- One row per usage event, for ever. created_at is the id's own timestamp, so the
-- primary key is uniqueness of (port, id) although the table is partitioned by month.
-- No foreign keys: they double the price of a row. The totals row written in the same
-- transaction references ports, and deleting a port deletes its rows by trigger.
create table ai_usage_ledger (
    created_at               timestamptz not null,
    id                       uuid        not null,
    input_tokens             bigint      not null default 0,
    output_tokens            bigint      not null default 0,
    total_tokens             bigint      not null default 0,
    cache_read_input_tokens  bigint      not null default 0,
    cache_write_input_tokens bigint      not null default 0,
    reasoning_output_tokens  bigint      not null default 0,
    port_id                  text        collate "C" not null,
    feature                  text        collate "C" not null,
    provider                 text        collate "C" not null,
    model                    text        collate "C" not null,
    measured_by              text        not null default 'provider',
    status                   text        not null default 'ok',
    user_id                  text,
    request_id               text,
    response_id              text,
    primary key (port_id, created_at, id),
    constraint tokens_add_up check (total_tokens = input_tokens + output_tokens)
) partition by range (created_at);

create index idx_ai_usage_port_feature_created on ai_usage_ledger (port_id, feature, created_at);

-- What reports and verification read. Changed only together with the ledger.
-- Days are UTC days. The free space keeps every update on its own page (HOT).
create table ai_usage_totals (
    port_id                  text   collate "C" not null references ports on delete cascade,
    day                      date   not null,
    feature                  text   collate "C" not null,
    provider                 text   collate "C" not null,
    model                    text   collate "C" not null,
    requests                 bigint not null,
    input_tokens             bigint not null,
    output_tokens            bigint not null,
    total_tokens             bigint not null,
    cache_read_input_tokens  bigint not null,
    cache_write_input_tokens bigint not null,
    reasoning_output_tokens  bigint not null,
    primary key (port_id, day, feature, provider, model)
) with (fillfactor = 70);

-- What budgets read: a port's tokens per day, at most 31 rows a period. Its rows are
-- what consumers send to gates, absolute, so that a lost or repeated message does no harm.
create table ai_usage_port_days (
    port_id      text   collate "C" not null references ports on delete cascade,
    day          date   not null,
    requests     bigint not null,
    total_tokens bigint not null,
    primary key (port_id, day)
) with (fillfactor = 70);

create table system_settings (
    port_id    text        collate "C" not null references ports on delete cascade,
    key        text        collate "C" not null,
    value      jsonb       not null,
    version    bigint      not null,
    updated_at timestamptz not null default now(),
    updated_by text        not null default '',
    primary key (port_id, key)
);

-- Who changed what, for ever: no foreign key, it outlives the port.
create table system_settings_audit (
    id         bigint generated always as identity primary key,
    port_id    text        collate "C" not null,
    key        text        not null,
    version    bigint      not null,
    old_value  jsonb,
    new_value  jsonb,
    changed_at timestamptz not null default now(),
    changed_by text        not null default ''
);
create index on system_settings_audit (port_id, id);

-- Erased users by hash only: late events of theirs are booked without the user.
create table ai_erased_users (
    user_hash bytea primary key,
    erased_at timestamptz not null default now()
);

-- One row per alert that was sent, so that each is sent once, whichever gate notices.
create table ai_alerts (
    port_id      text        collate "C" not null references ports on delete cascade,
    period       text        not null,
    period_start timestamptz not null,
    cap          text        not null check (cap in ('soft', 'hard')),
    claimed_at   timestamptz not null default now(),
    published_at timestamptz,
    primary key (port_id, period, period_start, cap)
);

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end $$;

create trigger append_only before update or delete or truncate on system_settings_audit
    for each statement execute function refuse_change();

create function delete_port_rows() returns trigger language plpgsql as $$
begin
    delete from ai_usage_ledger where port_id = old.id;
    return null;
end $$;

-- Triggers fire by name: after the cascades (RI_…), so that it sees what a booking that
-- those had to wait for has committed.
create trigger zz_delete_ledger after delete on ports
    for each row execute function delete_port_rows();
