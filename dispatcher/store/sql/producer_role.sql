-- The role that producers are granted: insert events, learn their ids, and nothing else. Nothing relies on what PUBLIC
-- may do by default: a database can take those rights away.
-- Parameters: none. Locks: the catalogue rows.
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'dispatcher_producer') THEN
        CREATE ROLE dispatcher_producer NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- another database of this cluster made it in the same moment
END $$;
GRANT USAGE ON SCHEMA dispatcher TO dispatcher_producer;
GRANT EXECUTE ON FUNCTION dispatcher.labels_are_valid(jsonb) TO dispatcher_producer;
GRANT EXECUTE ON FUNCTION
    dispatcher.publish(text, json, text, text, jsonb, timestamptz, text, text),
    dispatcher.publish(text, text, text, text, jsonb, timestamptz, text, text) TO dispatcher_producer;
GRANT INSERT (type, data, id, tenant, occurred_at, ordering_key, labels, traceparent)
    ON dispatcher.outbox TO dispatcher_producer;
GRANT SELECT (id) ON dispatcher.outbox TO dispatcher_producer;
