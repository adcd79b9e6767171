-- The state that reservations are decided by. The ports' locks were taken by the
-- statement before: this one must see what the last holder of each lock committed.
with clock as materialized (select clock_timestamp() as now)
select e.port, s.value, coalesce(s.version, 0), clock.now,
    coalesce((select sum(d.total_tokens) from ai_usage_port_days d
        where d.port_id = e.port and d.day >= (p.start at time zone 'UTC')::date
          and d.day < (p.start at time zone 'UTC' + ('1 ' || p.period)::interval)::date), 0)::bigint as used,
    coalesce((select sum(h.tokens) from ai_budget_holds h
        where h.port_id = e.port and h.expires_at > clock.now and h.created_at >= p.start), 0)::bigint as held
from clock
cross join unnest($1::text[]) e(port)
left join system_settings s on s.port_id = e.port and s.key = $2
cross join lateral (select coalesce(s.value->>'period', 'month') as period) b
cross join lateral (select b.period, date_trunc(b.period, clock.now, 'UTC') as start) p
