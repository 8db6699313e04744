-- Registers encryption keys that have no proof yet; the first process wins, and another one waits for its commit.
--
-- Parameters: $1 ids, $2 proofs. Index: encryption_key_pkey. Locks: the rows; in the order of their ids.
INSERT INTO dispatcher.encryption_key (key_id, proof)
SELECT k.key_id, k.proof FROM unnest($1::text[], $2::bytea[]) AS k (key_id, proof) ORDER BY k.key_id COLLATE "C"
ON CONFLICT (key_id) DO NOTHING
