-- What counters of limits have: the rest of under_way.sql, by whose snapshot what turns from held
-- into used is seen as one of the two.
union all
select 0, c.port_id, c.counter, c.value, c.start, c.used, 0, null::jsonb, null::bytea, '00000000-0000-0000-0000-000000000000'::uuid, false
from unnest($5::text[], $6::bigint[], $7::text[], $8::timestamptz[]) e(port, counter, value, start)
join ai_limit_counters c on c.port_id = e.port and c.counter = e.counter and c.value = e.value and c.start = e.start
