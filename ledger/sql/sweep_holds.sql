-- Holds that expired a while ago and that no event has settled.
with expired as (
    delete from ai_budget_holds where (port_id, id) in (
        select port_id, id from ai_budget_holds where expires_at < clock_timestamp() - $1::interval
        order by port_id, id limit $2 for update skip locked)
    returning port_id, service, feature, tokens, expires_at
), counted as (
    insert into ai_unsettled_holds as u (port_id, day, service, feature, holds, tokens)
    select e.port_id, (e.expires_at at time zone 'UTC')::date, e.service, e.feature, count(*), sum(e.tokens)
    from expired e join ports p on p.id = e.port_id
    group by 1, 2, 3, 4 order by 1, 2, 3, 4
    on conflict (port_id, day, service, feature) do update set
        holds = u.holds + excluded.holds, tokens = u.tokens + excluded.tokens
)
select port_id, count(*), sum(tokens)::bigint from expired group by 1
