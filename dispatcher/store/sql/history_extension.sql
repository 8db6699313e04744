-- Whether the database has the extension citus. Parameters: none. Index: catalogues. Locks: none.
SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')
