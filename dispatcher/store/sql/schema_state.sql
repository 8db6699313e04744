-- Whether the schema and its list of migrations exist, who owns the schema, and who we are. Always one row; owner is
-- NULL where there is no schema. The names are quoted as identifiers.
-- Parameters: none. Locks: none.
SELECT quote_ident(current_user) AS user_name, quote_ident(pg_get_userbyid(n.nspowner)) AS owner,
       coalesce(has_schema_privilege(n.oid, 'CREATE'), false) AS may_create,
       EXISTS (SELECT FROM pg_class AS c
               WHERE c.relnamespace = n.oid AND c.relname = 'schema_migration') AS has_migrations
FROM (VALUES ('dispatcher')) AS wanted (name)
LEFT JOIN pg_namespace AS n ON n.nspname = wanted.name
