-- In the order of the keys: two transactions that end holds of the same slices wait
-- for each other in the same order.
select s.port_id, s.id, s.secret, s.tokens, s.closed_tokens, s.closed, s.holds is not null
from (select * from unnest($1::text[], $2::uuid[]) e(port, id) order by 1, 2) e
join ai_budget_slices s on s.port_id = e.port and s.id = e.id
for update of s
