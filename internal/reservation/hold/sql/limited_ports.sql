-- Ports that have limits, their own or, where it has any, those of the default budget.
with limited as materialized (
    select port_id from ai_limited_ports where jsonb_array_length(limits) > 0 and port_id <> '*'
), by_default as materialized (
    select port_id from (select port_id from ai_budget_holds union select port_id from ai_budget_slices) u
    where (select jsonb_array_length(limits) > 0 from ai_limited_ports where port_id = '*')
        and not exists (select from ai_limited_ports p where p.port_id = u.port_id and p.limits is not null)
), ports as materialized (
    select port_id from limited union all select port_id from by_default
)
