-- The calls of a port in [$2, $3) that a limit matches, each dimension any ($n null), a value
-- or a prefix, with the value that is counted by itself ($14) and the start of its window ($15).
-- What follows says what is done with the calls.
with calls as not materialized (
    select coalesce(case $14::text when 'feature' then feature when 'provider' then provider when 'model' then model
            when 'user_id' then user_id when 'run_id' then run_id end, '') collate "C" as value,
        limit_window($15, created_at) as start, created_at, id, input_tokens, cache_read_input_tokens as cache_read,
        cache_write_input_tokens as cache_write, output_tokens
    from ai_usage_ledger
    where port_id = $1 and created_at >= $2 and created_at < $3
        and ($4::text is null or feature = $4) and ($5::text is null or starts_with(feature, $5))
        and ($6::text is null or provider = $6) and ($7::text is null or starts_with(provider, $7))
        and ($8::text is null or model = $8) and ($9::text is null or starts_with(model, $9))
        and ($10::text is null or user_id = $10) and ($11::text is null or starts_with(user_id, $11))
        and ($12::text is null or run_id = $12) and ($13::text is null or starts_with(run_id, $13))
), windows as (
    -- What each value has used in each window: $16 for each call, and by the weights of its tokens.
    select value, start, count(*) as calls, $16 * count(*) + $17 * greatest(sum(input_tokens) - sum(cache_read) - sum(cache_write), 0)
        + $18 * sum(cache_read) + $19 * sum(cache_write) + $20 * sum(output_tokens) as used
    from calls
    group by 1, 2
)
