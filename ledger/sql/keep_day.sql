-- Keeps a port's day $2 by user or by run ($3), as the ledger has it now, for a report ($4) or
-- in advance. Filled in is the column.
insert into ai_usage_day_shares as kept (port_id, dimension, day, requests, total_tokens, keys, calls, input_tokens, output_tokens, asked_at)
select $1, $3, $2::date, sum(calls), sum(input + output), array_agg(key), array_agg(calls), array_agg(input), array_agg(output), case when $4 then now() end
from (
    select coalesce(%s, '') as key, count(*) as calls, least(sum(input_tokens), 9223372036854775807)::bigint as input, least(sum(output_tokens), 9223372036854775807)::bigint as output
    from ai_usage_ledger
    where port_id = $1 and created_at >= $2::date::timestamp at time zone 'UTC' and created_at < ($2::date + 1)::timestamp at time zone 'UTC'
    group by 1
    order by 1
) shares
having count(*) > 0
on conflict (port_id, dimension, day) do update set requests = excluded.requests, total_tokens = excluded.total_tokens,
    keys = excluded.keys, calls = excluded.calls, input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
    asked_at = coalesce(excluded.asked_at, kept.asked_at)
where excluded.requests >= kept.requests
