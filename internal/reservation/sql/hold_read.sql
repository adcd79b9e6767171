-- The state that reservations are decided by. The ports' locks were taken by the
-- statement before: this one must see what the last holder of each lock committed.
-- "offset 0" makes Postgres find a port's period once and not for each of its holds.
-- A port without a budget of its own has the default one, which is not looked up for others.
-- leased: what gates may have of the port to spare, or had until $2 ago.
-- holds: how many there are beside those of leases, whatever their period.
-- A sum beyond 64 bits is the largest number that they hold: the statement serves several ports.
with clock as materialized (select clock_timestamp() as now)
select p.port, p.value, p.version, p.by_default, p.now,
    least(coalesce((select sum(d.total_tokens) from ai_usage_port_days d
        where d.port_id = p.port and d.day >= p.first and d.day < p.past), 0), 9223372036854775807)::bigint as used,
    least(coalesce(single.tokens, 0) + coalesce(sliced.tokens, 0), 9223372036854775807)::bigint as held,
    least(coalesce(sliced.leased, 0), 9223372036854775807)::bigint,
    single.holds
from (
    select b.*, (b.start at time zone 'UTC')::date as first, (b.finish at time zone 'UTC')::date as past
    from (
        select e.port, b.value, b.version, s.value is null as by_default, clock.now, period.start, period.finish
        from clock
        cross join unnest($1::text[]) e(port)
        left join lateral (select nullif(value, '{"default": true}') as value, version from system_settings where port_id = e.port and key = 'ai.budget' limit 1) s on true
        cross join lateral (select
            coalesce(s.value, (select value from system_settings where port_id = '*' and key = 'ai.budget')) as value,
            case when s.value is not null then s.version
                else coalesce((select version from system_settings where port_id = '*' and key = 'ai.budget'), 0) end as version) b
        cross join lateral budget_period(b.value->>'period', clock.now) period
        offset 0
    ) b
    offset 0
) p
cross join lateral (
    select sum(h.tokens) filter (where h.created_at >= p.start) as tokens, count(*) as holds
    from ai_budget_holds h
    where h.port_id = p.port and h.expires_at > p.now
) single
left join lateral (
    select sum(s.tokens - s.closed_tokens) as tokens,
        sum(s.tokens - s.closed_tokens) filter (where s.holds is null and s.leased_until > p.now - $2::interval) as leased
    from ai_budget_slices s
    where s.port_id = p.port and s.expires_at > p.now and s.created_at >= p.start
) sliced on true
