with complete as (
    select batch_id from ai_booked_shares where stream_id = $1 group by batch_id having count(*) = max(shares)
), gone as (
    delete from ai_booked_shares s using complete c
    where s.stream_id = $1 and s.batch_id = c.batch_id
    returning s.sequences
)
update ai_usage_streams
set booked = booked + (select range_agg(r) from gone, unnest(gone.sequences) r)
where id = $1 and exists (select from gone, unnest(gone.sequences))
