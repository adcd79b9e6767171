insert into ai_usage_totals as t (port_id, day, feature, provider, model, requests, input_tokens, output_tokens,
    total_tokens, cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens)
select port, date '1970-01-01' + day, feature, provider, model, requests, input, output,
    input + output, cache_read, cache_write, reasoning
from unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[],
    $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
    as e(port, day, feature, provider, model, requests, input, output, cache_read, cache_write, reasoning)
on conflict (port_id, day, feature, provider, model) do update set
    requests                 = t.requests                 + excluded.requests,
    input_tokens             = t.input_tokens             + excluded.input_tokens,
    output_tokens            = t.output_tokens            + excluded.output_tokens,
    total_tokens             = t.total_tokens             + excluded.total_tokens,
    cache_read_input_tokens  = t.cache_read_input_tokens  + excluded.cache_read_input_tokens,
    cache_write_input_tokens = t.cache_write_input_tokens + excluded.cache_write_input_tokens,
    reasoning_output_tokens  = t.reasoning_output_tokens  + excluded.reasoning_output_tokens
