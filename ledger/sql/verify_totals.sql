-- Every key of the totals that is in one of the buckets $4 against the sum of its ledger rows, both ways.
with booked as (
    select port_id, (created_at at time zone 'UTC')::date as day, feature, provider, model,
        count(*) as requests, sum(input_tokens) as input, sum(output_tokens) as output, sum(total_tokens) as total,
        sum(cache_read_input_tokens) as cache_read, sum(cache_write_input_tokens) as cache_write,
        sum(reasoning_output_tokens) as reasoning
    from ai_usage_ledger where created_at >= $1
        and ai_bucket(port_id, (created_at at time zone 'UTC')::date, feature, provider, model, $3) = any($4)
    group by 1, 2, 3, 4, 5
), kept as (
    select * from ai_usage_totals where day >= ($1::timestamptz at time zone 'UTC')::date
        and ai_bucket(port_id, day, feature, provider, model, $3) = any($4)
)
select 'totals', concat_ws(' ', port_id, day, feature, provider, model), least(coalesce(want, 0), 9223372036854775807)::bigint, coalesce(got, 0)::bigint, what
from booked b
full join kept t using (port_id, day, feature, provider, model)
cross join lateral (values
    ('requests', b.requests, t.requests),
    ('input_tokens', b.input, t.input_tokens),
    ('output_tokens', b.output, t.output_tokens),
    ('total_tokens', b.total, t.total_tokens),
    ('cache_read_input_tokens', b.cache_read, t.cache_read_input_tokens),
    ('cache_write_input_tokens', b.cache_write, t.cache_write_input_tokens),
    ('reasoning_output_tokens', b.reasoning, t.reasoning_output_tokens)) as figure(what, want, got)
where coalesce(want, 0) <> coalesce(got, 0)
order by 2, 5
limit $2
