-- Reads row types and arrays of them for the driver, which needs them before it encodes the first array of rows of a
-- connection (store/typed_connection.py). Its own query for any type takes three times as long.
--
-- Parameters: $1 the ids of the types. Returns what the driver's query returns, row types before their arrays.
-- Index: pg_type_oid_index, pg_attribute_relid_attnum_index. Locks: none.
SELECT t.oid, n.nspname AS ns, t.typname AS name, t.typtype AS kind, NULL::oid AS basetype, t.typelem AS elemtype,
       e.typdelim AS elemdelim, NULL::oid AS range_subtype,
       CASE WHEN t.typtype = 'c' THEN ARRAY(SELECT a.atttypid FROM pg_attribute AS a
                                            WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
                                            ORDER BY a.attnum) END AS attrtypoids,
       CASE WHEN t.typtype = 'c' THEN ARRAY(SELECT a.attname::text FROM pg_attribute AS a
                                            WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
                                            ORDER BY a.attnum) END AS attrnames,
       NULL::text AS basetype_name, CASE WHEN t.typelem <> 0 THEN format_type(t.typelem, NULL) END AS elemtype_name,
       NULL::text AS range_subtype_name
FROM pg_type AS t
JOIN pg_namespace AS n ON n.oid = t.typnamespace
LEFT JOIN pg_type AS e ON e.oid = t.typelem
WHERE t.oid = ANY ($1::oid[] || ARRAY(SELECT a.typelem FROM pg_type AS a WHERE a.oid = ANY ($1::oid[]) AND a.typelem <> 0))
ORDER BY t.typelem <> 0
