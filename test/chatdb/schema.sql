-- A chat product's database: every customer in the same tables, told apart by account_id.
CREATE TABLE accounts (
    id         bigint PRIMARY KEY,
    name       text        NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE TABLE contacts (
    id         bigint PRIMARY KEY,
    account_id bigint      NOT NULL REFERENCES accounts (id),
    name       text        NOT NULL,
    phone      text        NOT NULL,
    created_at timestamptz
);

CREATE TABLE conversations (
    id         bigint PRIMARY KEY,
    account_id bigint      NOT NULL REFERENCES accounts (id),
    contact_id bigint      NOT NULL REFERENCES contacts (id),
    channel    text        NOT NULL,
    started_at timestamptz
);

CREATE TABLE messages (
    id              bigint PRIMARY KEY,
    account_id      bigint NOT NULL REFERENCES accounts (id),
    conversation_id bigint NOT NULL REFERENCES conversations (id),
    body            text   NOT NULL,
    sent_at         timestamptz
);

CREATE TABLE attachments (
    id         bigint PRIMARY KEY,
    account_id bigint NOT NULL REFERENCES accounts (id),
    message_id bigint NOT NULL REFERENCES messages (id),
    file_name  text   NOT NULL,
    bytes      bigint NOT NULL,
    stored_at  timestamptz
);

CREATE TABLE payments (
    id              bigint PRIMARY KEY,
    account_id      bigint NOT NULL REFERENCES accounts (id),
    contact_id      bigint NOT NULL REFERENCES contacts (id),
    conversation_id bigint REFERENCES conversations (id),
    cents           bigint NOT NULL,
    paid_at         timestamptz
);
