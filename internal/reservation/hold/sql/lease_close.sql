-- The rows exist and are locked by this transaction: their new states are absolute, and
-- nothing is ever inserted. An upsert looks its rows up by key, whatever Postgres
-- believes of the table's size; an update that joins may not. Those that are done with are deleted by
-- their places, which an inner query looks up by key: see lease_lock.sql.
with closing as materialized (
    select * from unnest($1::text[], $2::uuid[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bool[]) e(port, id, closed_tokens, closed, closed_calls, done)
), gone as (
    delete from ai_budget_slices where ctid = any(array(
        select s.ctid from closing c
        cross join lateral (select ctid from ai_budget_slices where port_id = c.port and id = c.id offset 0) s where c.done))
)
insert into ai_budget_slices as s (port_id, id, closed_tokens, closed, closed_calls, tokens, secret, created_at, leased_until, expires_at)
select port, id, closed_tokens, closed, closed_calls, 0, '', now(), now(), now() from closing where not done
on conflict (port_id, id) do update set closed_tokens = excluded.closed_tokens, closed = excluded.closed, closed_calls = excluded.closed_calls
