-- Deletes an endpoint: the row stays for its history, whatever was secret in it goes, and what was asked of it.
--
-- Parameters: $1 id. Index: endpoint_pkey, endpoint_secret_of; delivery_request and endpoint_request are small. Locks: the rows.
-- Custom headers are emptied too: they often carry a token.
WITH secrets AS (
    DELETE FROM dispatcher.endpoint_secret WHERE endpoint_id = $1
), health AS (
    DELETE FROM dispatcher.endpoint_health WHERE endpoint_id = $1
), status AS (
    DELETE FROM dispatcher.endpoint_status WHERE endpoint_id = $1
), recent AS (
    DELETE FROM dispatcher.endpoint_recent WHERE endpoint_id = $1
), requests AS (
    DELETE FROM dispatcher.delivery_request
    WHERE endpoint_no = (SELECT number FROM dispatcher.endpoint WHERE id = $1)
), endpoint_requests AS (
    DELETE FROM dispatcher.endpoint_request
    WHERE endpoint_no = (SELECT number FROM dispatcher.endpoint WHERE id = $1)
)
UPDATE dispatcher.endpoint
SET deleted_at = clock_timestamp(), updated_at = clock_timestamp(), headers = '{}'
WHERE id = $1 AND deleted_at IS NULL
