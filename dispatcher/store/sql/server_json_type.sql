-- What kind of JSON a text is: the same judge as the outbox's. Parameters: $1 text. Locks: none.
SELECT json_typeof($1::text::json)
