-- Each is looked up by its key: a plain join may be planned the other way round while the
-- table is small, and such a plan is kept.
select d.port_id, d.day - date '1970-01-01', d.requests, d.total_tokens
from unnest($1::text[], $2::int[]) as e(port, day)
cross join lateral (select * from ai_usage_port_days where port_id = e.port and day = date '1970-01-01' + e.day limit 1) d
order by d.port_id, d.day
