-- Marks the schema as one that `dispatcher dev` made. Parameters: none. Locks: the catalogue's row.
COMMENT ON SCHEMA dispatcher IS 'made by dispatcher dev'
