-- What the schema holds its rows to, as Postgres prints it: CHECKs, defaults, triggers, and functions in PL/pgSQL.
--
-- Parameters: none. Locks: none. Partitions are left out, which have those of their parents. The wake-up trigger is left
-- out, which depends on a setting. Compared with definitions.json.
SELECT 'check ' || c.relname || '.' || k.conname AS name, pg_get_constraintdef(k.oid) AS definition
FROM pg_constraint AS k
JOIN pg_class AS c ON c.oid = k.conrelid
WHERE c.relnamespace = 'dispatcher'::regnamespace AND k.contype = 'c' AND NOT c.relispartition
UNION ALL
SELECT 'default ' || c.relname || '.' || a.attname, pg_get_expr(d.adbin, d.adrelid)
FROM pg_attrdef AS d
JOIN pg_class AS c ON c.oid = d.adrelid
JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
WHERE c.relnamespace = 'dispatcher'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
UNION ALL
SELECT 'trigger ' || c.relname || '.' || t.tgname, pg_get_triggerdef(t.oid)
FROM pg_trigger AS t
JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE c.relnamespace = 'dispatcher'::regnamespace AND NOT t.tgisinternal AND t.tgname <> 'outbox_3_notify'
UNION ALL
SELECT 'function ' || p.proname,
       array_to_string(p.proconfig, ', ') || CASE WHEN p.prosecdef THEN ' security definer ' ELSE ' ' END
       || encode(sha256(convert_to(p.prosrc, 'UTF8')), 'hex')
FROM pg_proc AS p
JOIN pg_language AS l ON l.oid = p.prolang
WHERE p.pronamespace = 'dispatcher'::regnamespace AND l.lanname = 'plpgsql'
ORDER BY 1
