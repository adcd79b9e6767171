-- How many calls a port made in [$2, $3), and what they add up to.
select count(*), least(coalesce(sum(total_tokens), 0), 9223372036854775807)::bigint
from ai_usage_ledger
where port_id = $1 and created_at >= $2 and created_at < $3
