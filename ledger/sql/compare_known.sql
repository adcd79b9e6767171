-- user_id is empty for an erased user; the row may still carry the one that the event
-- named while the erasure is under way.
select e.n, coalesce(l.user_id, '') in (e.user_id, e.named)
    and (l.input_tokens, l.output_tokens, l.cache_read_input_tokens, l.cache_write_input_tokens, l.reasoning_output_tokens,
         l.feature, l.provider, l.model, l.measured_by, l.status)
      = (e.input, e.output, e.cache_read, e.cache_write, e.reasoning,
         e.feature, e.provider, e.model, e.measured_by, e.status)
    and l.run_id is not distinct from nullif(e.run_id, '')
    and l.request_id is not distinct from nullif(e.request_id, '')
    and l.response_id is not distinct from nullif(e.response_id, '')
from unnest($1::timestamptz[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
    $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[])
    with ordinality
    as e(at, id, input, output, cache_read, cache_write, reasoning,
         port, feature, provider, model, measured_by, status, user_id, run_id, request_id, response_id, named, n)
join ai_usage_ledger l on l.port_id = e.port and l.created_at = e.at and l.id = e.id
