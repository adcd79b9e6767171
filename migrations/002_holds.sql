-- Reservations: a hold keeps tokens of a port's headroom for a call under way.

-- created_at and expires_at are by the database's clock, the only one that all gates
-- share. A hold counts in the period that contains created_at. No foreign key: the
-- insert would lock the port's row against every other one; a trigger cascades instead.
create table ai_budget_holds (
    port_id         text        not null,
    id              uuid        not null,
    tokens          bigint      not null check (tokens >= 0),
    created_at      timestamptz not null,
    expires_at      timestamptz not null,
    service         text        not null default '',
    feature         text        not null default '',
    idempotency_key text,
    primary key (port_id, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
        autovacuum_vacuum_cost_delay = 0);
create unique index ai_budget_holds_idempotency on ai_budget_holds (port_id, idempotency_key)
    where idempotency_key is not null;

-- Holds that expired without a usage event: calls that were allowed and never reported.
create table ai_unsettled_holds (
    port_id text   not null references ports on delete cascade,
    day     date   not null,
    service text   not null,
    feature text   not null,
    holds   bigint not null,
    tokens  bigint not null,
    primary key (port_id, day, service, feature)
);

create function delete_port_holds() returns trigger language plpgsql as $$
begin
    delete from ai_budget_holds where port_id = old.id;
    return null;
end $$;

create trigger zz_delete_holds after delete on ports
    for each row execute function delete_port_holds();
