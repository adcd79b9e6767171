-- What all ports together used on a day, and since one, is read by the day: the tables keep
-- years. A row is indexed once, when it is made: no booking after that changes its day.
create index ai_usage_port_days_day on ai_usage_port_days (day);
create index ai_usage_totals_day on ai_usage_totals (day);
