-- Deletes portal links two days after their expiry, which is longer than a session lasts.
--
-- Parameters: none. Index: portal_link_end. Locks: those rows.
DELETE FROM dispatcher.portal_link WHERE expires_at < clock_timestamp() - interval '2 days'
