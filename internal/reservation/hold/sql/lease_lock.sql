-- In the order of the keys: two transactions that end holds of the same leases wait
-- for each other in the same order. Lateral, with "offset 0": whatever Postgres believes
-- of the table's size, it looks up one lease after the other.
select s.*
from (select * from unnest($1::text[], $2::uuid[]) e(port, id) order by 1, 2) e
cross join lateral (
    select port_id, id, secret, tokens, closed_tokens, closed, closed_calls, holds is not null
    from ai_budget_slices where port_id = e.port and id = e.id
    offset 0 for update
) s
