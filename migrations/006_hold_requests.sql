-- What a hold with an idempotency key was asked for: the request as JSON, without its
-- port, key and service. The same key with another request is a mistake that the caller
-- is told of. null: not known, in holds of older versions and once its user was erased.
alter table ai_budget_holds add column asked json;
