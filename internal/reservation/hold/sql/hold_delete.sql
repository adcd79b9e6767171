-- Ends holds, each once: whoever names one again, or another port's, finds none. They
-- are looked up by key and deleted by place, whatever Postgres believes of the table's size.
delete from ai_budget_holds where ctid = any(array(
    select h.ctid from unnest($1::text[], $2::uuid[]) e(port, id)
    cross join lateral (select ctid from ai_budget_holds where port_id = e.port and id = e.id offset 0) h))
returning port_id, id
