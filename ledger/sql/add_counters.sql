-- Adds to counters of limits. A sum that 64 bits cannot hold is the largest that they can.
insert into ai_limit_counters as c (port_id, counter, value, start, ends, used)
select port, counter, value, start, ends, used
from unnest($1::text[], $2::bigint[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::bigint[]) e(port, counter, value, start, ends, used)
on conflict (port_id, counter, value, start) do update set
    used = case when c.used > 9223372036854775807 - greatest(excluded.used, 0) then 9223372036854775807 else c.used + excluded.used end
returning port_id, counter, value, start, used
