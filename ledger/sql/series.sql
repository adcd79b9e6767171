-- What a port used in [$2, $3) by step and key: the $4 keys with most tokens by themselves, in
-- that order, and all others together (without a rank). Filled in are the parts: step, key,
-- tokens and calls.
with parts as materialized (
    %s
), most as (
    select key, row_number() over (order by sum(tokens) desc, key) as rank from parts group by key order by 2 limit $4
)
select p.step, m.rank, coalesce(m.key, ''), least(sum(p.tokens), 9223372036854775807)::bigint, sum(p.calls)::bigint
from parts p left join most m using (key)
group by p.step, m.rank, m.key
