-- Limits: what a port may spend by feature, provider, model, user or run, beside the caps
-- of its budget.

-- What bookings count, for the limits of each port that has any: a list of limits, each
-- with the counter that it is counted in and the time from which on windows are counted.
-- Only ports that have, or had, limits are here. version is of all ports together, and
-- becomes visible in its order: a booking that knows the highest knows all. Versions and
-- counters are numbers of microseconds, so that none is used twice, also after Postgres was
-- put back to an older copy.
create table ai_limited_ports (
    port_id text   primary key references ports on delete cascade,
    version bigint not null,
    limits  jsonb  not null
);
create index ai_limited_ports_version on ai_limited_ports (version);

-- What calls have used, in the window that began then. value is of the dimension that the
-- limit counts by itself, and '' where there is none. Changed by bookings only, with the
-- rows that they write. used is in the limit's unit; of unit weighted in thousandths.
create table ai_limit_counters (
    port_id text        not null,
    counter bigint      not null,
    value   text        not null,
    start   timestamptz not null,
    ends    timestamptz not null, -- of the window; infinity: never
    used    bigint      not null,
    primary key (port_id, counter, value, start)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- The start of the window that contains a moment: package budget's Period.Bounds.
create function limit_window(kind text, moment timestamptz) returns timestamptz
language sql stable parallel safe as $$
    select case kind when 'total' then timestamptz '1970-01-01 00:00:00+00' else date_trunc(kind, moment, 'UTC') end
$$;

-- What a hold is for, beside its feature, so that limits that are added later can match it:
-- {"provider", "model", "user_id", "run_id", "input", "output"}, each where there is one.
alter table ai_budget_holds add column call jsonb;
-- All holds of a lease are for one feature.
alter table ai_budget_slices add column feature text;

create function delete_port_counters() returns trigger language plpgsql as $$
begin
    delete from ai_limit_counters where port_id = old.id;
    return null;
end $$;

create trigger zz_delete_counters after delete on ports
    for each row execute function delete_port_counters();
