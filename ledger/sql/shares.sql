-- One page of a port's usage, and what all pages add up to. Filled in are: the shares;
-- which of them come after the one of key $5 with $4 tokens (null: all do); their order,
-- twice. $6 null: all in one page.
with shares as (
    %s
    group by 1
), page as (
    select * from shares where $4::bigint is null or %s order by %s limit $6
), whole as (
    select least(coalesce(sum(tokens), 0), 9223372036854775807)::bigint as used, coalesce(sum(requests), 0)::bigint as calls from shares
)
select used, calls, key, coalesce(requests, 0), coalesce(input, 0), coalesce(output, 0), coalesce(tokens, 0)
from whole left join page on true
order by %s
