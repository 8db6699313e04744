-- Makes the functions and views through which the distributed statements reach history (store/distributed.py).
--
-- Parameters: none. Locks: ACCESS EXCLUSIVE on the views. They are on the coordinator alone, and a start finds out by them that
-- history is distributed. INSERT ... SELECT ... FROM unnest() goes through COPY, which always commits in two phases: a
-- crash leaves the rows here and there, or none.
SET LOCAL citus.enable_ddl_propagation = off;

-- The columns of each table as a type of its own, to which `migrate` adds those of new versions. Functions that return rows of the tables themselves, and views that read
-- these functions, are a circle to Citus, which then makes no further partition.
DO $$
DECLARE
    parent text;
    missing text[];
BEGIN
    FOREACH parent IN ARRAY ARRAY['event', 'body', 'delivery_done', 'attempt'] LOOP
        IF to_regtype('dispatcher.' || parent || '_columns') IS NULL THEN
            EXECUTE format('CREATE TYPE dispatcher.%I AS ()', parent || '_columns');
        END IF;
        SELECT array_agg(format('ADD ATTRIBUTE %I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                                CASE WHEN a.attcollation = '"C"'::regcollation THEN ' COLLATE "C"' ELSE '' END) ORDER BY a.attnum)
        INTO missing
        FROM pg_attribute AS a
        WHERE a.attrelid = ('dispatcher.' || parent)::regclass AND a.attnum > 0 AND NOT a.attisdropped
          AND NOT EXISTS (SELECT FROM pg_attribute AS t JOIN pg_class AS c ON c.oid = t.attrelid
                          WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relname = parent || '_columns'
                            AND t.attname = a.attname);
        IF missing IS NOT NULL THEN
            EXECUTE format('ALTER TYPE dispatcher.%I %s', parent || '_columns', array_to_string(missing, ', '));
        END IF;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION dispatcher.read_event(query text) RETURNS SETOF dispatcher.event_columns LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN QUERY EXECUTE query; END $$;
CREATE OR REPLACE FUNCTION dispatcher.read_body(query text) RETURNS SETOF dispatcher.body_columns LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN QUERY EXECUTE query; END $$;
CREATE OR REPLACE FUNCTION dispatcher.read_delivery_done(query text) RETURNS SETOF dispatcher.delivery_done_columns LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN QUERY EXECUTE query; END $$;
CREATE OR REPLACE FUNCTION dispatcher.read_attempt(query text) RETURNS SETOF dispatcher.attempt_columns LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN QUERY EXECUTE query; END $$;

-- An UPDATE or DELETE of one shard would commit in one phase, before the rows of the coordinator do. COPY, also of no row,
-- makes it two phases.
CREATE OR REPLACE FUNCTION dispatcher.change_history(query text) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed bigint;
BEGIN
    INSERT INTO dispatcher.body SELECT * FROM unnest(ARRAY[]::dispatcher.body[]);
    EXECUTE query;
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END $$;
CREATE OR REPLACE FUNCTION dispatcher.take_delivery_done(query text) RETURNS SETOF dispatcher.delivery_done_columns LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO dispatcher.body SELECT * FROM unnest(ARRAY[]::dispatcher.body[]);
    RETURN QUERY EXECUTE query;
END $$;

-- Keeps events from being erased until the transaction ends, and the other way round: rows of several workers cannot be
-- locked in one statement. Returns the ids, so that they are locked before they are read.
CREATE OR REPLACE FUNCTION dispatcher.locked_events(ids text[], for_erasure boolean DEFAULT false) RETURNS text[] LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    key bigint;
BEGIN
    FOR key IN SELECT DISTINCT hashtextextended(one, 0) FROM unnest(ids) AS one ORDER BY 1 LOOP
        IF for_erasure THEN
            PERFORM pg_advisory_xact_lock(key);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(key);
        END IF;
    END LOOP;
    RETURN ids;
END $$;

CREATE OR REPLACE FUNCTION dispatcher.write_history() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parent text := left(TG_TABLE_NAME, -length('_write'));
BEGIN
    EXECUTE format('INSERT INTO dispatcher.%I SELECT * FROM unnest(ARRAY[$1::text::dispatcher.%I])', parent, parent) USING NEW;
    RETURN NEW;
END $$;

CREATE OR REPLACE VIEW dispatcher.event_write AS SELECT * FROM dispatcher.read_event('SELECT * FROM dispatcher.event');
CREATE OR REPLACE VIEW dispatcher.body_write AS SELECT * FROM dispatcher.read_body('SELECT * FROM dispatcher.body');
CREATE OR REPLACE VIEW dispatcher.delivery_done_write AS SELECT * FROM dispatcher.read_delivery_done('SELECT * FROM dispatcher.delivery_done');
CREATE OR REPLACE VIEW dispatcher.attempt_write AS SELECT * FROM dispatcher.read_attempt('SELECT * FROM dispatcher.attempt');
ALTER VIEW dispatcher.event_write ALTER COLUMN test SET DEFAULT false;
ALTER VIEW dispatcher.event_write ALTER COLUMN labels SET DEFAULT '{}';
ALTER VIEW dispatcher.delivery_done_write ALTER COLUMN finished_at SET DEFAULT now();
ALTER VIEW dispatcher.delivery_done_write ALTER COLUMN test SET DEFAULT false;
CREATE OR REPLACE TRIGGER write_history INSTEAD OF INSERT ON dispatcher.event_write
    FOR EACH ROW EXECUTE FUNCTION dispatcher.write_history();
CREATE OR REPLACE TRIGGER write_history INSTEAD OF INSERT ON dispatcher.body_write
    FOR EACH ROW EXECUTE FUNCTION dispatcher.write_history();
CREATE OR REPLACE TRIGGER write_history INSTEAD OF INSERT ON dispatcher.delivery_done_write
    FOR EACH ROW EXECUTE FUNCTION dispatcher.write_history();
CREATE OR REPLACE TRIGGER write_history INSTEAD OF INSERT ON dispatcher.attempt_write
    FOR EACH ROW EXECUTE FUNCTION dispatcher.write_history();

REVOKE ALL ON FUNCTION dispatcher.read_event(text), dispatcher.read_body(text), dispatcher.read_delivery_done(text),
    dispatcher.read_attempt(text), dispatcher.change_history(text), dispatcher.take_delivery_done(text),
    dispatcher.locked_events(text[], boolean), dispatcher.write_history() FROM PUBLIC;
