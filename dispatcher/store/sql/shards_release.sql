-- Gives shards back, for another replica to take at once. Parameters: $1 incarnation, $2 shards. Locks: the rows.
UPDATE dispatcher.shard SET owner = NULL WHERE owner = $1 AND shard = ANY ($2::smallint[])
