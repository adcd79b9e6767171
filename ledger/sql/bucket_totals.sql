-- The same of the totals, by their keys, and by the ports' days that these are part of: one of the two buckets is null.
select ai_bucket(port_id, day, feature, provider, model, $3), ai_bucket(port_id, day, '', '', '', $3),
    least(sum(requests), 9223372036854775807)::bigint, least(sum(input_tokens), 9223372036854775807)::bigint, least(sum(output_tokens), 9223372036854775807)::bigint,
    least(sum(total_tokens), 9223372036854775807)::bigint, least(sum(cache_read_input_tokens), 9223372036854775807)::bigint,
    least(sum(cache_write_input_tokens), 9223372036854775807)::bigint, least(sum(reasoning_output_tokens), 9223372036854775807)::bigint
from ai_usage_totals where ctid >= $1 and ctid < $2 and day >= ($4::timestamptz at time zone 'UTC')::date
group by grouping sets ((1), (2))
