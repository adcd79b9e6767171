insert into ai_budget_slices (port_id, id, tokens, closed, secret, created_at, leased_until, expires_at, feature, calls)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
