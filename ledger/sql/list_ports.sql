-- A page of the ports after $1, at most $2 of those that the condition filled in names,
-- with their budgets (key $3), or else the default one, and what they used: in the period of the budget, which is
-- one of [$4, $5), a day, [$6, $7), a week, and [$8, $9), a month; and of all time.
with page as (select * from ports where id > $1 and %s order by id limit $2)
select p.id, p.name, p.created_at, b.value, coalesce(s.version, 0), s.value is null and coalesce(s.version, st.version, 0) > 0,
    coalesce(b.updated_at, p.created_at), coalesce(b.updated_by, ''),
    least(coalesce(sum(d.total_tokens) filter (where d.day >= (b.start at time zone 'UTC')::date and d.day < (b.finish at time zone 'UTC')::date), 0), 9223372036854775807)::bigint,
    least(coalesce(sum(d.total_tokens), 0), 9223372036854775807)::bigint, coalesce(sum(d.requests), 0)::bigint
from page p
left join (select port_id, nullif(value, '{"default": true}') as value, version, updated_at, updated_by from system_settings where key = $3) s on s.port_id = p.id
left join system_settings st on st.port_id = '*' and st.key = $3
cross join lateral (select value, updated_at, updated_by,
    case value->>'period' when 'day' then $4::timestamptz when 'week' then $6 else $8 end as start,
    case value->>'period' when 'day' then $5::timestamptz when 'week' then $7 else $9 end as finish
    from (select case when s.value is null then st.value else s.value end as value,
        case when s.value is null then st.updated_at else s.updated_at end as updated_at,
        case when s.value is null then st.updated_by else s.updated_by end as updated_by) e) b
left join ai_usage_port_days d on d.port_id = p.id
group by p.id, p.name, p.created_at, s.value, s.version, st.version, b.value, b.updated_at, b.updated_by
order by p.id
