-- Claims deliveries to a receiver that are due, the longest due first: until $3 is over nobody
-- else attempts them.
with due as materialized (
    select alert, receiver from ai_alert_deliveries
    where receiver = $1 and delivered_at is null and given_up_at is null and next_attempt <= now()
    order by next_attempt limit $2 for update skip locked
)
update ai_alert_deliveries d set attempts = d.attempts + 1, next_attempt = now() + $3::interval
from due, ai_alerts a
where d.alert = due.alert and d.receiver = due.receiver and a.id = d.alert
returning a.port_id, a.counter, a.limit_name, a.limit_value, a.unit, a.period, a.period_start, a.threshold, a.reached, a.used, a.noticed_at, a.id, d.attempts
