select d.port_id, d.day - date '1970-01-01', d.requests, d.total_tokens
from unnest($1::text[], $2::int[]) as e(port, day)
join ai_usage_port_days d on d.port_id = e.port and d.day = date '1970-01-01' + e.day
order by d.port_id, d.day
