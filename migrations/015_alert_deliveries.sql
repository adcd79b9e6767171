-- Each alert has a name of its own, which whoever receives it twice sees twice.
alter table ai_alerts
    add column id        uuid        not null default gen_random_uuid() unique,
    add column spread_at timestamptz; -- when its deliveries were made, none too
update ai_alerts set spread_at = now(); -- receivers are told of what comes from now on

create index ai_alerts_unspread on ai_alerts (noticed_at) where spread_at is null;
create index ai_alerts_noticed on ai_alerts (noticed_at, id);

-- An alert on its way to one receiver, which is a name in a file of the processes that deliver.
-- Whoever attempts it moves next_attempt on first: that is its claim.
create table ai_alert_deliveries (
    alert        uuid        not null references ai_alerts (id) on delete cascade,
    receiver     text        collate "C" not null,
    attempts     int         not null default 0,
    next_attempt timestamptz not null default now(),
    give_up_at   timestamptz not null, -- from when on no attempt follows one that fails
    last_error   text        not null default '',
    delivered_at timestamptz,
    given_up_at  timestamptz,
    primary key (alert, receiver)
);
create index ai_alert_deliveries_waiting on ai_alert_deliveries (receiver, next_attempt) where delivered_at is null and given_up_at is null;
