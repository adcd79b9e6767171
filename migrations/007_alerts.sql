-- An alert is a cap reached at its value then, and a claim to send it is a lease: what
-- was claimed and not noted as published is claimed again once the lease is over.

alter table ai_alerts
    add column cap_tokens    bigint,      -- the cap's value
    add column used_tokens   bigint,      -- when a gate noticed; before migration 007: cap_tokens
    add column claimed_until timestamptz; -- of no account once published_at is set
alter table ai_alerts rename column claimed_at to noticed_at;

-- A gate that died left these for good. Where the period is over nobody wants to hear of
-- it; the others are sent late.
delete from ai_alerts where published_at is null
    and (period_start at time zone 'UTC' + case period when 'day' then interval '1 day' when 'week' then interval '7 days' else interval '1 month' end) at time zone 'UTC' <= now();

-- What the cap was when the alert was claimed, as the audit log has it. Without that, 0:
-- any cap that is reached from now on is a new one.
update ai_alerts a set
    claimed_until = a.noticed_at + interval '15 seconds',
    cap_tokens = coalesce((
        select (s.new_value ->> (a.cap || '_cap_tokens'))::bigint from system_settings_audit s
        where s.port_id = a.port_id and s.key = 'ai.budget' and s.changed_at <= a.noticed_at
            and s.new_value ->> 'period' = a.period and s.new_value ->> (a.cap || '_cap_tokens') is not null
        order by s.id desc limit 1), 0);
update ai_alerts set used_tokens = cap_tokens;

alter table ai_alerts
    alter column cap_tokens set not null,
    alter column used_tokens set not null,
    alter column claimed_until set not null,
    alter column noticed_at drop default,
    drop constraint ai_alerts_pkey,
    add primary key (port_id, period, period_start, cap, cap_tokens);

-- Every gate looks here every other second.
create index ai_alerts_unpublished on ai_alerts (claimed_until) where published_at is null;
