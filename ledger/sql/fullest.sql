-- For each of a port's counters $2, in the windows that began at $3: those of its values that have
-- used most, at most $4, and how many values there are. no: which of the counters, from 1.
select e.no, c.value, c.used, c.values
from unnest($2::bigint[], $3::timestamptz[]) with ordinality e(counter, start, no)
cross join lateral (
    select value, used, count(*) over () as values
    from ai_limit_counters
    where port_id = $1 and counter = e.counter and start = e.start
    order by used desc, value
    limit $4
) c
order by e.no, c.used desc, c.value
