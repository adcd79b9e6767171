-- Slices of which every hold has ended. A row that a booking has locked waits for
-- the next time: no gate waits for a booking.
delete from ai_budget_slices where (port_id, id) in (
    select s.port_id, s.id from unnest($1::text[], $2::uuid[], $3::bigint[]) e(port, id, tokens)
    join ai_budget_slices s on s.port_id = e.port and s.id = e.id
    where s.closed_tokens = e.tokens
    order by 1, 2 for update of s skip locked)
returning id
