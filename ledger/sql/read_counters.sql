select c.port_id, c.counter, c.value, c.start, c.used
from unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[]) e(port, counter, value, start)
join ai_limit_counters c on c.port_id = e.port and c.counter = e.counter and c.value = e.value and c.start = e.start
