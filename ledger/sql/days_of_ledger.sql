-- What a port used by user or by run (%[2]s), by day, in days of [$2, $3): from what is kept of a day
-- where that is all that the day has, and from the ledger otherwise. Filled in is also the column.
select d.day, s.key, s.calls, s.input, s.output
from ai_usage_port_days d
join ai_usage_day_shares k using (port_id, day, requests, total_tokens)
cross join unnest(k.keys, k.calls, k.input_tokens, k.output_tokens) as s (key, calls, input, output)
where d.port_id = $1 and k.dimension = '%[2]s' and d.day >= ($2::timestamptz at time zone 'UTC')::date and d.day < ($3::timestamptz at time zone 'UTC')::date
union all
select d.day, l.key, l.calls, l.input, l.output
from ai_usage_port_days d
left join ai_usage_day_shares k on k.port_id = d.port_id and k.dimension = '%[2]s' and k.day = d.day and k.requests = d.requests and k.total_tokens = d.total_tokens
cross join lateral (
    select coalesce(%[1]s, '') as key, count(*) as calls, sum(input_tokens) as input, sum(output_tokens) as output
    from ai_usage_ledger
    where port_id = $1 and created_at >= d.day::timestamp at time zone 'UTC' and created_at < (d.day + 1)::timestamp at time zone 'UTC'
    group by 1
) l
where d.port_id = $1 and k.port_id is null and d.day >= ($2::timestamptz at time zone 'UTC')::date and d.day < ($3::timestamptz at time zone 'UTC')::date
