-- Values of limits' counters that a lease of any value is not to be for. A counter with too many
-- values is left out: as many as $8 are not looked through further. Lateral, with "offset 0": see lease_lock.sql.
select e.port, e.place, c.near
from unnest($1::text[], $2::int[], $3::bigint[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::bigint[]) e(port, place, counter, start, low, below, high)
cross join lateral (
    select count(*) as n, coalesce(array_agg(value) filter (where used > e.low and used < e.below or used > e.high), '{}') as near
    from (
        select value, used from ai_limit_counters
        where port_id = e.port and counter = e.counter and start = e.start
        limit $8 offset 0
    ) v
) c
where c.n < $8
