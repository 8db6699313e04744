-- Publishes what one replica has in memory, and forgets what the dead published.
--
-- Parameters: $1 incarnation, $2 figures (JSON text). Index: replica_figures_pkey. Locks: the rows.
WITH gone AS (
    DELETE FROM dispatcher.replica_figures AS f
    WHERE f.incarnation <> $1
      AND NOT EXISTS (SELECT FROM dispatcher.replica AS r WHERE r.incarnation = f.incarnation)
)
INSERT INTO dispatcher.replica_figures (incarnation, at, figures)
VALUES ($1, clock_timestamp(), $2::text::jsonb)
ON CONFLICT (incarnation) DO UPDATE SET at = excluded.at, figures = excluded.figures
