-- The JSON type of a text, by the same parser that the outbox uses. Parameters: $1 text. Locks: none.
SELECT json_typeof($1::text::json)
