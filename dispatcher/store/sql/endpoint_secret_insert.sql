-- Adds an encrypted secret. Parameters: $1 endpoint id, $2 role (current, staged, oauth, client_key), $3 key id, $4 ciphertext.
-- Index: endpoint_secret_one refuses a second of that role. Locks: routing's row.
INSERT INTO dispatcher.endpoint_secret (endpoint_id, role, key_id, sealed) VALUES ($1, $2, $3, $4)
