insert into ai_booked_shares (stream_id, batch_id, share, shares, sequences)
select $1, $2, $3, $4, coalesce(range_agg(int8range(first, after)), '{}')
from unnest($5::bigint[], $6::bigint[]) as t (first, after)
on conflict do nothing
