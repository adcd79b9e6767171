-- Slices that are gone, because they expired or their port was deleted, are as good as sealed.
with e as materialized (
    select * from unnest($1::text[], $2::uuid[], $3::bigint[], $4::text[]) e(port, id, tokens, holds)
), free as materialized (
    select s.port_id, s.id, e.tokens, e.holds
    from e join ai_budget_slices s on s.port_id = e.port and s.id = e.id
    order by 1, 2 for update of s skip locked
), sealed as (
    update ai_budget_slices s set tokens = free.tokens, holds = free.holds::jsonb
    from free where s.port_id = free.port_id and s.id = free.id
    returning s.id
)
select id from sealed
union all
select e.id from e where not exists (select from ai_budget_slices s where s.port_id = e.port and s.id = e.id)
