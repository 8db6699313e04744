-- Namesakes of everything that our statements may call, each of which raises an error when it is called: what a role with
-- CREATE on a schema of the path can place. Functions and operators have the exact types of pg_catalog's; the last ones
-- fit better than any of pg_catalog's.
CREATE SCHEMA hostile;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
DO $plant$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT DISTINCT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments,
               format_type(p.prorettype, NULL) AS returned
        FROM pg_proc AS p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind IN ('f', 'a') AND NOT p.proretset
          AND p.provariadic = 0
          AND p.proname IN ('to_char', 'lpad', 'nextval', 'setval', 'now', 'clock_timestamp', 'statement_timestamp',
              'date_part', 'timezone', 'length', 'octet_length', 'json_typeof', 'jsonb_typeof', 'substring', 'sha256', 'sum',
              'count', 'min', 'max', 'bool_and', 'bool_or', 'pg_notify', 'make_interval', 'format', 'set_config',
              'current_setting', 'pg_is_in_recovery', 'has_table_privilege', 'has_schema_privilege',
              'pg_has_role', 'pg_backend_pid', 'pg_stat_get_dead_tuples', 'pg_total_relation_size', 'obj_description', 'to_date',
              'right', 'left', 'encode', 'pg_get_constraintdef', 'pg_get_expr', 'pg_get_triggerdef', 'quote_ident',
              'pg_get_userbyid', 'pg_sequence_last_value', 'pg_notification_queue_usage', 'date_trunc', 'ceil', 'round')
          AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) AS a (type) JOIN pg_type AS t ON t.oid = a.type WHERE t.typtype = 'p')
          AND p.prorettype NOT IN (SELECT oid FROM pg_type WHERE typtype = 'p')
    LOOP
        EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql IMMUTABLE AS '
                       '$$BEGIN RAISE EXCEPTION ''hostile function''; END$$', one.proname, one.arguments, one.returned);
    END LOOP;
    FOR one IN
        SELECT o.oprname, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result, o.oid
        FROM pg_operator AS o
        WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprkind = 'b' AND o.oprcode <> 0
          AND o.oprname IN ('=', '<>', '<', '<=', '>', '>=', '||', '~', '~~', '+', '-', '*', '/', '->>', '#>>', '@>', '&&')
          AND o.oprleft = ANY (ARRAY['text', 'name', 'oid', 'int2', 'int4', 'int8', 'float8', 'numeric', 'date', 'timestamp',
                               'timestamptz', 'interval', 'bool', 'bytea', 'jsonb', 'text[]', '"char"']::regtype[])
          AND o.oprright = ANY (ARRAY['text', 'name', 'oid', 'int2', 'int4', 'int8', 'float8', 'numeric', 'date', 'timestamp',
                                'timestamptz', 'interval', 'bool', 'bytea', 'jsonb', 'text[]', '"char"']::regtype[])
    LOOP
        EXECUTE format('CREATE FUNCTION hostile.op_%s(%s, %s) RETURNS %s LANGUAGE plpgsql IMMUTABLE AS '
                       '$$BEGIN RAISE EXCEPTION ''hostile operator''; END$$', one.oid, one.l, one.r, one.result);
        EXECUTE format('CREATE OPERATOR hostile.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = hostile.op_%s)',
                       one.oprname, one.l, one.r, one.oid);
    END LOOP;
    FOR one IN SELECT relname FROM pg_class
               WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind IN ('r', 'v') AND relname !~ '_toast_'
    LOOP
        EXECUTE format('CREATE TABLE hostile.%I (hostile integer)', one.relname);
    END LOOP;
END $plant$;
CREATE FUNCTION hostile.to_char(date, text) RETURNS text LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'hostile function'; END$$;
CREATE DOMAIN hostile.text AS pg_catalog.text CHECK (false);
CREATE DOMAIN hostile.int8 AS pg_catalog.int8 CHECK (false);
CREATE DOMAIN hostile.date AS pg_catalog.date CHECK (false);
