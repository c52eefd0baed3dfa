-- After the rows, which is faster. Every foreign key has an index on the side that refers, and every table one by customer and age.
CREATE INDEX contacts_age ON contacts (account_id, created_at, id);
CREATE INDEX conversations_age ON conversations (account_id, started_at, id);
CREATE INDEX conversations_contact ON conversations (contact_id);
CREATE INDEX messages_age ON messages (account_id, sent_at, id);
CREATE INDEX messages_conversation ON messages (conversation_id);
CREATE INDEX attachments_age ON attachments (account_id, stored_at, id);
CREATE INDEX attachments_message ON attachments (message_id);
CREATE INDEX payments_age ON payments (account_id, paid_at, id);
CREATE INDEX payments_contact ON payments (contact_id);
CREATE INDEX payments_conversation ON payments (conversation_id);
