-- Whether the extension of trigrams is installed in this database. Parameters: none. Index: catalogues. Locks: none.
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm')
