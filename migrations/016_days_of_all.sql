-- What all ports together used since a day is read by the day: the tables keep years, and
-- rows lie in them much in the order of their days. Of the block ranges only the first and
-- last day are kept, so bookings pay next to nothing for it, and whoever looks up a port
-- finds it by its key, as before: a plan that is made while a table is small could take a
-- btree of days for as good.
create index ai_usage_port_days_day on ai_usage_port_days using brin (day) with (autosummarize = on);
create index ai_usage_totals_day on ai_usage_totals using brin (day) with (autosummarize = on);
