-- A page of the ports after $1, at most $2 of those that the condition filled in names,
-- with their budgets (key $3) and what they used: in the period of the budget, which is
-- one of [$4, $5), a day, [$6, $7), a week, and [$8, $9), a month; and of all time.
with page as (select * from ports where id > $1 and %s order by id limit $2)
select p.id, p.name, p.created_at, s.value, coalesce(s.version, 0), coalesce(s.updated_at, p.created_at), coalesce(s.updated_by, ''),
    coalesce(sum(d.total_tokens) filter (where d.day >= (b.start at time zone 'UTC')::date and d.day < (b.finish at time zone 'UTC')::date), 0)::bigint,
    coalesce(sum(d.total_tokens), 0)::bigint, coalesce(sum(d.requests), 0)::bigint
from page p
left join system_settings s on s.port_id = p.id and s.key = $3
cross join lateral (select
    case s.value->>'period' when 'day' then $4::timestamptz when 'week' then $6 else $8 end as start,
    case s.value->>'period' when 'day' then $5::timestamptz when 'week' then $7 else $9 end as finish) b
left join ai_usage_port_days d on d.port_id = p.id
group by p.id, p.name, p.created_at, s.value, s.version, s.updated_at, s.updated_by
order by p.id
