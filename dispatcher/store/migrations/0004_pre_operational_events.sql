-- Lets the dispatcher raise events about itself, and producers still not. `pre`: the version before writes neither.
--
-- Producers may insert no event whose type begins "dispatcher.". The dispatcher's own rows are told apart by a
-- column that the producers' role has no right to write (sql/producer_role.sql names the columns it has).
ALTER TABLE dispatcher.outbox ADD COLUMN operational boolean NOT NULL DEFAULT false;
ALTER TABLE dispatcher.outbox DROP CONSTRAINT type_prefix_dispatcher_is_reserved;
ALTER TABLE dispatcher.outbox ADD CONSTRAINT type_prefix_dispatcher_is_reserved
    CHECK (operational = (type LIKE 'dispatcher.%'));
