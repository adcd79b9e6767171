-- Whose calls a lease is for, where limits count them by more than the feature: {"by": dimensions,
-- "of": a list of values for each call}. Null: anybody's. Such a lease counts as held in every value
-- that a limit may count its calls in; so do processes of an older build count all leases.
alter table ai_budget_slices add column calls jsonb;
