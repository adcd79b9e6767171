-- Every port's day that is in one of the buckets $4 against the sum of its totals, both ways.
with summed as (
    select port_id, day, sum(requests) as requests, sum(total_tokens) as total_tokens from ai_usage_totals
    where day >= ($1::timestamptz at time zone 'UTC')::date
        and ai_bucket(port_id, day, '', '', '', $3) = any($4)
    group by 1, 2
), kept as (
    select * from ai_usage_port_days where day >= ($1::timestamptz at time zone 'UTC')::date
        and ai_bucket(port_id, day, '', '', '', $3) = any($4)
)
select 'port_days', concat_ws(' ', port_id, day), least(coalesce(want, 0), 9223372036854775807)::bigint, coalesce(got, 0)::bigint, what
from summed t
full join kept d using (port_id, day)
cross join lateral (values
    ('requests', t.requests, d.requests),
    ('total_tokens', t.total_tokens, d.total_tokens)) as figure(what, want, got)
where coalesce(want, 0) <> coalesce(got, 0)
order by 2, 5
limit $2
