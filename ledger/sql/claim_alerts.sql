-- Claims alerts for $8: those whose cap was not reached at this value or a higher one
-- before, in the period, by what is stored and by what is given before. In the order of
-- the key, so that two gates do not wait for each other; a port that goes takes its own along.
with given as (
    select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::bigint[], $6::bigint[], $7::timestamptz[])
        with ordinality g(port_id, period, period_start, cap, cap_tokens, used_tokens, noticed_at, n)
)
insert into ai_alerts (port_id, period, period_start, cap, cap_tokens, used_tokens, noticed_at, claimed_until)
select g.port_id, g.period, g.period_start, g.cap, g.cap_tokens, g.used_tokens, g.noticed_at, now() + $8::interval
from given g join ports p on p.id = g.port_id
where not exists (select from ai_alerts a
        where (a.port_id, a.period, a.period_start, a.cap) = (g.port_id, g.period, g.period_start, g.cap) and a.cap_tokens >= g.cap_tokens)
    and not exists (select from given a
        where (a.port_id, a.period, a.period_start, a.cap) = (g.port_id, g.period, g.period_start, g.cap) and a.cap_tokens >= g.cap_tokens and a.n < g.n)
order by g.port_id, g.period, g.period_start, g.cap, g.cap_tokens
for key share of p
on conflict do nothing
returning port_id, period, period_start, cap, cap_tokens, used_tokens, noticed_at
