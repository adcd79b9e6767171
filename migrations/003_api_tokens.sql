-- API tokens: everything but the secret, whose SHA-256 is kept. Rows are never deleted: a
-- revoked token stays, with who revoked it.
create table api_tokens (
    id           text        primary key,
    name         text        not null,
    hash         bytea       not null check (length(hash) = 32),
    permissions  text[]      not null,
    ports        text[],     -- null: every port; empty: none
    created_at   timestamptz not null,
    created_by   text        not null,
    expires_at   timestamptz, -- null: never
    last_used_at timestamptz, -- null: not yet
    revoked_at   timestamptz, -- null: not revoked
    revoked_by   text        not null default ''
);
