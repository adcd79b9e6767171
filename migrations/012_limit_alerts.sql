-- Alerts of limits beside a port's own caps. What was cap is one of a limit's thresholds: soft,
-- hard, or what its alert_at says, such as 80% or 8500000. Renamed, so that gates of an older
-- build, which would take alerts of limits for those of the port's own caps, send none.
alter table ai_alerts rename column cap to threshold;
alter table ai_alerts rename column cap_tokens to reached; -- the threshold's value, in the unit
alter table ai_alerts rename column used_tokens to used;

alter table ai_alerts
    add column limit_name  text        collate "C" not null default 'port',
    add column counter     bigint      not null default 0, -- that the limit is counted in; 0: the port's own caps
    add column limit_value text        collate "C" not null default '', -- of what the limit counts by itself
    add column unit        text        not null default 'tokens',
    add column ends        timestamptz, -- of a limit's window, infinity: never; null: a port's own caps
    drop constraint ai_alerts_cap_check,
    add constraint ai_alerts_threshold_check check (threshold in ('soft', 'hard') or counter <> 0 and threshold ~ '^[0-9]{1,16}%?$'),
    drop constraint ai_alerts_pkey,
    add primary key (port_id, counter, limit_name, limit_value, period, period_start, threshold, reached);

-- Those of limits are dropped with the counters of their windows.
create index ai_alerts_ends on ai_alerts (ends) where ends < 'infinity';
