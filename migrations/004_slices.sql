-- Slices: tokens of a port's headroom that a gate has leased, to make holds from in
-- memory. A slice only ever shrinks: when one of its holds ends, when the gate says
-- how much of it has become holds, and for good when it expires.

-- All holds of a slice expire with it. holds is null while the gate may still make
-- holds; then it lists them: {"labels": [[service, feature], …], "holds": [[label, tokens], …]}.
-- closed has a bit for each hold, in that order, set when the hold ends: whoever sets it,
-- a booking or a release, is the one that takes its tokens off. secret signs the
-- reservation ids, which carry the hold's number and tokens.
create table ai_budget_slices (
    port_id       text        not null,
    id            uuid        not null,
    tokens        bigint      not null check (tokens >= 0), -- granted; made into holds, once holds is set
    closed_tokens bigint      not null default 0,           -- of the holds that have ended
    closed        bytea       not null,
    secret        bytea       not null,
    created_at    timestamptz not null,
    leased_until  timestamptz not null, -- no hold is made from then on
    expires_at    timestamptz not null,
    holds         jsonb,
    primary key (port_id, id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
        autovacuum_vacuum_cost_delay = 0);

-- All that is held of ports' budgets, as long as expires_at is not past.
create view ai_held_tokens as
    select port_id, id, tokens, created_at, expires_at from ai_budget_holds
    union all
    select port_id, id, tokens - closed_tokens, created_at, expires_at from ai_budget_slices;

create or replace function delete_port_holds() returns trigger language plpgsql as $$
begin
    delete from ai_budget_holds where port_id = old.id;
    perform from ai_budget_slices where port_id = old.id order by id for update; -- as bookings lock them
    delete from ai_budget_slices where port_id = old.id;
    return null;
end $$;
