-- By user or by run ($7), in days of [$2, $3): from what is kept of a day where that is all
-- that the day has, and from the ledger otherwise. Filled in is the column. A sum beyond 64 bits
-- is the largest number that they hold.
select key, sum(calls)::bigint as requests, least(sum(input), 9223372036854775807)::bigint as input,
    least(sum(output), 9223372036854775807)::bigint as output, least(sum(input) + sum(output), 9223372036854775807)::bigint as tokens
from (
    select s.key, s.calls, s.input, s.output
    from ai_usage_port_days d
    join ai_usage_day_shares k using (port_id, day, requests, total_tokens)
    cross join unnest(k.keys, k.calls, k.input_tokens, k.output_tokens) as s (key, calls, input, output)
    where d.port_id = $1 and k.dimension = $7 and d.day >= ($2::timestamptz at time zone 'UTC')::date and d.day < ($3::timestamptz at time zone 'UTC')::date
    union all
    select l.key, l.calls, l.input, l.output
    from ai_usage_port_days d
    left join ai_usage_day_shares k on k.port_id = d.port_id and k.dimension = $7 and k.day = d.day and k.requests = d.requests and k.total_tokens = d.total_tokens
    cross join lateral (
        select coalesce(%s, '') as key, count(*) as calls, sum(input_tokens) as input, sum(output_tokens) as output
        from ai_usage_ledger
        where port_id = $1 and created_at >= d.day::timestamp at time zone 'UTC' and created_at < (d.day + 1)::timestamp at time zone 'UTC'
        group by 1
    ) l
    where d.port_id = $1 and k.port_id is null and d.day >= ($2::timestamptz at time zone 'UTC')::date and d.day < ($3::timestamptz at time zone 'UTC')::date
) parts
