-- A port's days in [$2, $3), both whole UTC days.
select day - date '1970-01-01', requests, total_tokens
from ai_usage_port_days
where port_id = $1 and day >= ($2::timestamptz at time zone 'UTC')::date and day < ($3::timestamptz at time zone 'UTC')::date
order by day
