-- A page of the audit log, newest first.
--
-- Parameters (NULL: any): $1 tenant, $2 actor, $3 action, $4 object's id, $5 since, $6 until (not included),
--   $7 and $8 time and id of the last line of the page before, $9 rows at most.
-- Index: audit_of_tenant, else audit_newest, read backwards until the page is full. Locks: none.
SELECT id, at, actor, tenant, action, object, detail::text AS detail
FROM dispatcher.audit
WHERE ($1::text IS NULL OR tenant = $1)
  AND ($2::text IS NULL OR actor = $2)
  AND ($3::text IS NULL OR action = $3)
  AND ($4::text IS NULL OR object = $4)
  AND ($5::timestamptz IS NULL OR at >= $5)
  AND ($6::timestamptz IS NULL OR at < $6)
  AND ($7::timestamptz IS NULL OR (at, id) < ($7, $8::bigint))
ORDER BY at DESC, id DESC
LIMIT $9
