-- The period [start, finish) that contains a moment: package budget's Period.Bounds, for
-- where the database's clock decides. One that is not named is a month. Planned as part of
-- the statement that asks.
create function budget_period(period text, moment timestamptz) returns table (start timestamptz, finish timestamptz)
language sql stable parallel safe rows 1 as $$
    select s.start, (s.start at time zone 'UTC'
        + case period when 'day' then interval '1 day' when 'week' then interval '7 days' else interval '1 month' end) at time zone 'UTC'
    from (select date_trunc(case period when 'day' then 'day' when 'week' then 'week' else 'month' end, moment, 'UTC') as start) s
$$;
