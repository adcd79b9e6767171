-- A page of what a port's counter $2 has in the window that began at $3: most used first, what comes
-- after $4 used by value $5, and how many values there are. A page without any has one row.
with counters as (
    select value, used from ai_limit_counters where port_id = $1 and counter = $2 and start = $3
), page as (
    select value, used from counters where $4::bigint is null or used < $4 or used = $4 and value > $5 order by used desc, value limit $6
)
select n.values, p.value, p.used from (select count(*) as values from counters) n left join page p on true order by p.used desc, p.value
