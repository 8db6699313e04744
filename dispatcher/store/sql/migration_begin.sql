-- Sets, within a transaction, every setting on which the meaning of a schema's text depends, and the limits of waiting.
--
-- Parameters: none. Locks: none. Expressions (defaults, CHECKs, index expressions, views, SQL functions) bind when they are
-- created: what search_path finds then is called for ever, and a string that is read the old way loses its backslashes.
-- Left alone: default_tablespace, which decides where rows lie and nothing else. transaction_timeout is new in 17.
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL standard_conforming_strings = on;
SET LOCAL escape_string_warning = on;
SET LOCAL backslash_quote = safe_encoding;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL quote_all_identifiers = off;
SET LOCAL transform_null_equals = off;
SET LOCAL array_nulls = on;
SET LOCAL check_function_bodies = on;
SET LOCAL row_security = off;
SET LOCAL default_table_access_method = heap;
SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL intervalstyle = postgres;
SET LOCAL timezone = 'UTC';
SET LOCAL extra_float_digits = 1;
SET LOCAL bytea_output = hex;
SET LOCAL lock_timeout = '500ms';
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0;
SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'
