-- Claims alerts for $13: those whose threshold was not reached at this value or a higher one
-- before, in the window, by what is stored and by what is given before. In the order of
-- the key, so that two gates do not wait for each other; a port that goes takes its own along.
with given as (
    select * from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::timestamptz[], $9::text[], $10::bigint[], $11::bigint[], $12::timestamptz[])
        with ordinality g(port_id, counter, limit_name, limit_value, unit, period, period_start, ends, threshold, reached, used, noticed_at, n)
)
insert into ai_alerts (port_id, counter, limit_name, limit_value, unit, period, period_start, ends, threshold, reached, used, noticed_at, claimed_until)
select g.port_id, g.counter, g.limit_name, g.limit_value, g.unit, g.period, g.period_start, g.ends, g.threshold, g.reached, g.used, g.noticed_at, now() + $13::interval
from given g join ports p on p.id = g.port_id
where not exists (select from ai_alerts a
        where (a.port_id, a.counter, a.limit_name, a.limit_value, a.period, a.period_start, a.threshold)
            = (g.port_id, g.counter, g.limit_name, g.limit_value, g.period, g.period_start, g.threshold) and a.reached >= g.reached)
    and not exists (select from given a
        where (a.port_id, a.counter, a.limit_name, a.limit_value, a.period, a.period_start, a.threshold)
            = (g.port_id, g.counter, g.limit_name, g.limit_value, g.period, g.period_start, g.threshold) and a.reached >= g.reached and a.n < g.n)
order by g.port_id, g.counter, g.limit_name, g.limit_value, g.period, g.period_start, g.threshold, g.reached
for key share of p
on conflict do nothing
returning port_id, counter, limit_name, limit_value, unit, period, period_start, threshold, reached, used, noticed_at, id
