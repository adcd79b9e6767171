-- The agent run, conversation or job that a call belongs to.
alter table ai_usage_ledger add column run_id text;

