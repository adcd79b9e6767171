-- The values of a limit's window lie side by side: a lease for any value looks through them, and
-- bookings of a moment change neighbours.
alter table ai_limit_counters
    drop constraint ai_limit_counters_pkey,
    add primary key (port_id, counter, start, value);
