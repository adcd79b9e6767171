-- A port's used and held tokens in [$2, $3), whole UTC days. A hold counts in the
-- period that contains created_at, until it expires.
select
    (select least(coalesce(sum(total_tokens), 0), 9223372036854775807)::bigint from ai_usage_port_days
        where port_id = $1 and day >= ($2::timestamptz at time zone 'UTC')::date and day < ($3::timestamptz at time zone 'UTC')::date),
    (select least(coalesce(sum(tokens), 0), 9223372036854775807)::bigint from ai_held_tokens
        where port_id = $1 and created_at >= $2 and created_at < $3 and expires_at > now()),
    now()
