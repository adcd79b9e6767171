-- Of each of a port's counters $2, in the windows that began at $3: those of its values that have used most, at
-- most $4, and those for which something is held: $6, each of the counter with that number ($5, from 1). With
-- each row comes how many values there are.
select e.no, c.value, c.used, c.values
from unnest($2::bigint[], $3::timestamptz[]) with ordinality e(counter, start, no)
cross join lateral (
    select coalesce(most.value, held.value) as value, coalesce(most.used, used.used, 0) as used,
        coalesce(max(most.values) over (), 0) + count(*) filter (where held.value is not null and used.value is null) over () as values
    from (
        select value, used, count(*) over () as values
        from ai_limit_counters
        where port_id = $1 and counter = e.counter and start = e.start
        order by used desc, value
        limit $4
    ) most
    full join (select h.value from unnest($5::bigint[], $6::text[]) h(no, value) where h.no = e.no) held on held.value = most.value
    left join ai_limit_counters used on used.port_id = $1 and used.counter = e.counter and used.start = e.start and used.value = held.value
) c
