-- Whose calls a lease is for, where limits look at more than the feature: {"by": dimensions, "of": a
-- list of values for each of them}, and once holds is set "made": what became of it for each, as
-- [holds, tokens, input, output]. Null: anybody's. Such a lease counts as held in every value that a
-- limit may count its calls in; so do processes of an older build count all leases.
alter table ai_budget_slices add column calls jsonb;
-- What of that has ended, for each of "of": holds, tokens, input and output, as uvarints. It may be
-- too little, since older builds do not know of it.
alter table ai_budget_slices add column closed_calls bytea;
