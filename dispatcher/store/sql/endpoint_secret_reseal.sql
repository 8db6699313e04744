-- Replaces secrets with their re-encrypted form and returns the count.
--
-- Parameters: $1 the new key's id; one element each: $2 ids, $3 bytes as they were read, $4 re-encrypted bytes.
-- A secret that was changed meanwhile is not replaced: it was encrypted with the new key, or the next run finds it.
-- Index: endpoint_secret_pkey. Locks: the rows, routing's row (replicas read the endpoints again, once a slice).
WITH changed AS (
    UPDATE dispatcher.endpoint_secret AS s
    SET key_id = $1, sealed = n.anew
    FROM unnest($2::bigint[], $3::bytea[], $4::bytea[]) AS n (id, was, anew)
    WHERE s.id = n.id AND s.sealed = n.was
    RETURNING 1
)
SELECT count(*) FROM changed
