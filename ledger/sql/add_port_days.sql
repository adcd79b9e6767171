insert into ai_usage_port_days as d (port_id, day, requests, total_tokens)
select port, date '1970-01-01' + day, requests, tokens
from unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[]) as e(port, day, requests, tokens)
on conflict (port_id, day) do update set
    requests     = d.requests     + excluded.requests,
    total_tokens = d.total_tokens + excluded.total_tokens
returning port_id, day - date '1970-01-01', requests, total_tokens
