-- Alerts with what became of them at each receiver, the newest first, those after ($3, $4, $5).
select a.port_id, a.counter, a.limit_name, a.limit_value, a.unit, a.period, a.period_start, a.threshold, a.reached, a.used, a.noticed_at, a.id,
    a.published_at, coalesce(d.receiver, ''), coalesce(d.attempts, 0), d.next_attempt, coalesce(d.last_error, ''), d.delivered_at, d.given_up_at
from ai_alerts a left join ai_alert_deliveries d on d.alert = a.id
where ($1 = '' or a.port_id = $1)
    and (not $2 or d.delivered_at is null and (d.given_up_at is not null or d.last_error <> ''))
    and ($3::timestamptz is null or (a.noticed_at, a.id) < ($3, $4) or (a.noticed_at, a.id) = ($3, $4) and coalesce(d.receiver, '') > $5)
order by a.noticed_at desc, a.id desc, coalesce(d.receiver, '') collate "C"
limit $6
