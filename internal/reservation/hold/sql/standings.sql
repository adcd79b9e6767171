-- What every port's live holds add up to in the current period of its budget. The
-- sums of all three periods come first: finding a budget costs more than adding up. A sum
-- beyond 64 bits is the largest number that they hold, or one port would fail the reading of all.
with clock as materialized (
    select c.now, d.start as day, w.start as week, m.start as month
    from (select clock_timestamp() as now offset 0) c, budget_period('day', c.now) d, budget_period('week', c.now) w, budget_period('month', c.now) m
), held as materialized (
    select h.port_id,
        coalesce(sum(h.tokens) filter (where h.created_at >= clock.day), 0) as day,
        coalesce(sum(h.tokens) filter (where h.created_at >= clock.week), 0) as week,
        coalesce(sum(h.tokens) filter (where h.created_at >= clock.month), 0) as month
    from clock join ai_held_tokens h on h.expires_at > clock.now
    group by h.port_id
)
select clock.now, coalesce(held.port_id, ''),
    least(coalesce(case coalesce(nullif(s.value, '{"default": true}'), d.value)->>'period' when 'day' then held.day when 'week' then held.week else held.month end, 0), 9223372036854775807)::bigint
from clock
left join held on true
left join system_settings s on s.port_id = held.port_id and s.key = 'ai.budget'
left join system_settings d on d.port_id = '*' and d.key = 'ai.budget'
