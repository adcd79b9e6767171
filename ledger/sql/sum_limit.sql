-- What the ledger has for a limit: for each value and each window. Filled in are which ports it is of, 1, which
-- times, 2, and the window that a time is in, 3. A dimension is any ($n null), a value, or a prefix. $13: the
-- one that is counted by itself. $15: of that user only. Null, the second: what a counter has is there.
select port_id, null::bigint, coalesce(case $13::text when 'feature' then feature when 'provider' then provider when 'model' then model
        when 'user_id' then user_id when 'run_id' then run_id end, '') as value,
    %[3]s as start, count(*),
    least(coalesce(sum(input_tokens), 0), 9223372036854775807)::bigint, least(coalesce(sum(cache_read_input_tokens), 0), 9223372036854775807)::bigint,
    least(coalesce(sum(cache_write_input_tokens), 0), 9223372036854775807)::bigint, least(coalesce(sum(output_tokens), 0), 9223372036854775807)::bigint
from ai_usage_ledger
where %[1]s and %[2]s
    and ($3::text is null or feature = $3) and ($4::text is null or starts_with(feature, $4))
    and ($5::text is null or provider = $5) and ($6::text is null or starts_with(provider, $6))
    and ($7::text is null or model = $7) and ($8::text is null or starts_with(model, $8))
    and ($9::text is null or user_id = $9) and ($10::text is null or starts_with(user_id, $10))
    and ($11::text is null or run_id = $11) and ($12::text is null or starts_with(run_id, $12))
    and ($15::text is null or user_id = $15)
group by 1, 3, 4
