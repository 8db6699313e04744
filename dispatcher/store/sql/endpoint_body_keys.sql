-- Under what endpoints with bodies of their own store them, deleted ones included: their profile and number.
--
-- Parameters: $1 profiles. Index: none, there are thousands of endpoints at most. Locks: none.
SELECT profile || '@' || number FROM dispatcher.endpoint WHERE own_bodies AND profile = ANY ($1::text[])
