-- What rows in a range of a month's blocks add to each bucket, by the keys of the totals. TABLE is the month's partition.
select ai_bucket(port_id, (created_at at time zone 'UTC')::date, feature, provider, model, $3), null::int,
    count(*), least(sum(input_tokens), 9223372036854775807)::bigint, least(sum(output_tokens), 9223372036854775807)::bigint,
    least(sum(total_tokens), 9223372036854775807)::bigint, least(sum(cache_read_input_tokens), 9223372036854775807)::bigint,
    least(sum(cache_write_input_tokens), 9223372036854775807)::bigint, least(sum(reasoning_output_tokens), 9223372036854775807)::bigint
from TABLE where ctid >= $1 and ctid < $2 and created_at >= $4
group by 1
