-- Like lock_slices.sql, but a slice that a booking has locked is passed over: no gate
-- waits for a booking. The last column: it is not there at all.
select e.port, e.id, s.closed_tokens, there.id is null
from (select * from unnest($1::text[], $2::uuid[]) e(port, id) order by 1, 2) e
left join lateral (
    select closed_tokens from ai_budget_slices where port_id = e.port and id = e.id
    offset 0 for update skip locked
) s on true
left join lateral (select id from ai_budget_slices where port_id = e.port and id = e.id offset 0) there on true
