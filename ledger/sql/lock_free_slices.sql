-- Like lock_slices.sql, but a slice that a booking has locked is passed over: no gate
-- waits for a booking. A slice that is not there at all has no closed tokens.
select e.port, e.id, s.closed_tokens, s.id is null and not exists (
    select from ai_budget_slices where port_id = e.port and id = e.id)
from (select * from unnest($1::text[], $2::uuid[]) e(port, id) order by 1, 2) e
left join lateral (
    select id, closed_tokens from ai_budget_slices where port_id = e.port and id = e.id
    offset 0 for update skip locked
) s on true
