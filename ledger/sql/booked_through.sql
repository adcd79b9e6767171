-- The last sequence before the first gap.
with complete as (
    select batch_id from ai_booked_shares where stream_id = $1 group by batch_id having count(*) = max(shares)
), noted as (
    select range_agg(r) as sequences
    from ai_booked_shares s join complete using (batch_id), unnest(s.sequences) r
    where s.stream_id = $1
), everything as (
    select booked + coalesce(noted.sequences, '{}') as booked from ai_usage_streams, noted where id = $1
)
select coalesce((select upper(r) - 1 from unnest(booked) r where r @> 0::bigint), 0)
from everything
