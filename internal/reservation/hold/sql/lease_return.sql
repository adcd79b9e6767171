-- Says whether the lease is done with: removed, since all its holds have ended, or sealed,
-- or not there at all; and when. One that a booking has locked is passed over. Whose
-- calls it is for may have been erased meanwhile.
with free as materialized (
    select closed_tokens from ai_budget_slices where port_id = $1 and id = $2 for update skip locked
), removed as (
    delete from ai_budget_slices where port_id = $1 and id = $2 and (select closed_tokens from free) = $3
), sealed as (
    update ai_budget_slices set tokens = $3, holds = jsonb_build_object('service', $4::text, 'feature', $5::text, 'count', $6::int),
        calls = case when calls is not null then $7::jsonb end
    where port_id = $1 and id = $2 and (select closed_tokens from free) <> $3
)
select exists (select from free) or not exists (select from ai_budget_slices where port_id = $1 and id = $2), clock_timestamp()
