-- By their places, which an inner query looks up by key: see lease_lock.sql.
delete from ai_budget_slices where ctid = any(array(
    select s.ctid from unnest($1::text[], $2::uuid[]) e(port, id)
    cross join lateral (select ctid from ai_budget_slices where port_id = e.port and id = e.id offset 0) s))
