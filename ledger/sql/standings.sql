-- How ports stand: name, the tokens of the running day ($1), week ($2) and month ($3), all of them
-- before the day $4, and the last day with a call. The conditions are on ports and on port days.
with used as materialized (
    select port_id, sum(total_tokens) filter (where day >= $1::date) as day, sum(total_tokens) filter (where day >= $2::date) as week,
        sum(total_tokens) filter (where day >= $3::date) as month, max(day) as last
    from ai_usage_port_days where day >= least($2::date, $3::date) and day < $4::date and %[2]s group by port_id)
select p.id, p.name, least(coalesce(u.day, 0), 9223372036854775807)::bigint, least(coalesce(u.week, 0), 9223372036854775807)::bigint,
    least(coalesce(u.month, 0), 9223372036854775807)::bigint,
    coalesce(u.last, (select max(d.day) from ai_usage_port_days d where d.port_id = p.id)) -- one that has long been silent
from ports p left join used u on u.port_id = p.id where %[1]s
