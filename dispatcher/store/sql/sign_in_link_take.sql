-- Uses a sign-in link up, if it has not expired. Of two requests with the same code, one gets the row.
--
-- Parameters: $1 SHA-256 of its code. Index: sign_in_link_pkey. Locks: the row.
DELETE FROM dispatcher.sign_in_link WHERE hash = $1 AND expires_at > clock_timestamp()
RETURNING created_by, role, tenant
