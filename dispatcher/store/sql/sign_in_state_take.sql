-- Records that a sign-in's state was used. Inserts no row if it was used before.
--
-- Parameters: $1 SHA-256 of the state. Index: sign_in_state_pkey. Locks: none.
INSERT INTO dispatcher.sign_in_state (hash) VALUES ($1) ON CONFLICT DO NOTHING RETURNING true
