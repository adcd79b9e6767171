-- A port's calls in [$2, $3) that have at most $4 tokens, in the order in which they happened.
select created_at, total_tokens
from ai_usage_ledger
where port_id = $1 and created_at >= $2 and created_at < $3 and total_tokens <= $4
order by created_at, id
