-- Records that a person signed in, with the name and the rights of this sign-in; returns the person's id.
--
-- Parameters: $1 id of a new person, $2 issuer, $3 subject, $4 name, $5 role, $6 tenant (NULL: all).
-- Index: person_subject. Locks: the row.
INSERT INTO dispatcher.person (id, issuer, subject, name, role, tenant)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (issuer, subject) DO UPDATE
SET name = excluded.name, role = excluded.role, tenant = excluded.tenant, signed_in_at = clock_timestamp()
RETURNING id
