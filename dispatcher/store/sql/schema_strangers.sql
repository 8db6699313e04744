-- Roles other than ours that may create objects where the daemon's names resolve, and objects there that are another's.
--
-- Parameters: none. Locks: none. Superusers are left out: they may do everything everywhere.
SELECT format('role %s may create objects in the schema %I: REVOKE CREATE ON SCHEMA %2$I FROM %1$s',
              CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(acl.grantee)) END, n.nspname) AS stranger
FROM pg_namespace AS n
CROSS JOIN LATERAL aclexplode(n.nspacl) AS acl
WHERE (n.nspname = 'dispatcher' OR n.nspname = ANY (current_schemas(true))) AND acl.privilege_type = 'CREATE'
  AND acl.grantee <> n.nspowner AND acl.grantee <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
  AND NOT EXISTS (SELECT FROM pg_roles WHERE oid = acl.grantee AND rolsuper)
UNION ALL
SELECT format('dispatcher.%I belongs to the role %I', c.relname, pg_get_userbyid(c.relowner))
FROM pg_class AS c
WHERE c.relnamespace = 'dispatcher'::regnamespace AND NOT pg_has_role(c.relowner, 'USAGE')
UNION ALL
SELECT format('the function %s belongs to the role %I', p.oid::regprocedure, pg_get_userbyid(p.proowner))
FROM pg_proc AS p
WHERE p.pronamespace = 'dispatcher'::regnamespace AND NOT pg_has_role(p.proowner, 'USAGE')
