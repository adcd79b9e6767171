insert into ai_usage_ledger (created_at, id, input_tokens, output_tokens, total_tokens,
    cache_read_input_tokens, cache_write_input_tokens, reasoning_output_tokens,
    port_id, feature, provider, model, measured_by, status, user_id, run_id, request_id, response_id)
select at, id, input, output, input + output, cache_read, cache_write, reasoning,
    port, feature, provider, model, measured_by, status,
    nullif(user_id, ''), nullif(run_id, ''), nullif(request_id, ''), nullif(response_id, '')
from unnest($1::timestamptz[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[])
    as e(at, id, input, output, cache_read, cache_write, reasoning,
         port, feature, provider, model, measured_by, status, user_id, run_id, request_id, response_id)
on conflict do nothing
returning port_id, id
