-- The same of the ports' days, by port and day: these know requests and total tokens only.
select null::int, ai_bucket(port_id, day, '', '', '', $3), least(sum(requests), 9223372036854775807)::bigint, 0::bigint, 0::bigint,
    least(sum(total_tokens), 9223372036854775807)::bigint, 0::bigint, 0::bigint, 0::bigint
from ai_usage_port_days where ctid >= $1 and ctid < $2 and day >= ($4::timestamptz at time zone 'UTC')::date
group by 2
