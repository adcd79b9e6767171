-- What the page shows and searches.

-- Questions that caps refused: how many, and when the last, by port, limit and day (UTC). It is for
-- people who look for what is going on; nothing is decided by it. Gates add up what they refused,
-- and write it here every few seconds. Neither key changes, so that an update stays on its page.
create table ai_refusals (
    port_id    text   collate "C" not null references ports on delete cascade,
    day        date   not null,
    limit_name text   collate "C" not null, -- port: a cap of the port's own
    refused    bigint not null,
    last_at    timestamptz not null,
    primary key (port_id, day, limit_name)
) with (fillfactor = 70);
create index ai_refusals_day on ai_refusals (day);

-- What a port is searched by. To put every id and name into small letters for each search took most of
-- the time of it. Of a name that is by the database's own language, of an id by its bytes.
alter table ports add column sought text collate "C" not null generated always as (lower(id) || E'\n' || lower(name)) stored;
