-- The default budget: what binds every port that has none of its own. It is stored like the
-- others, for the port '*', which is none. A port that was given back to it has the value
-- {"default": true} instead of caps.
alter table system_settings
    drop constraint system_settings_port_id_fkey,
    add column port text collate "C" generated always as (nullif(port_id, '*')) stored references ports on delete cascade;
create index system_settings_port on system_settings (port);

-- Bookings count the limits of '*' for every port that has no row, or one whose limits are
-- null. Once '*' has limits, each port with a budget of its own has a row. It outlives the
-- port: whoever reads what has changed must find that the limits are gone.
alter table ai_limited_ports
    drop constraint ai_limited_ports_port_id_fkey,
    alter column limits drop not null;
update ai_limited_ports set limits = '[]' where jsonb_typeof(limits) = 'null'; -- so were removed limits written
