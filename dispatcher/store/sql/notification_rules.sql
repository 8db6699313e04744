-- All notification rules. Parameters: none. Index: none, they are few. Locks: none.
SELECT n.id, n.name, n.tenant, n.event_types, n.endpoint_ids, n.to_endpoint_id, n.email, n.recipient, n.quiet_seconds,
       n.digest_seconds, n.digested_at
FROM dispatcher.notification AS n
