-- Takes this incarnation off the list on the way out. Parameters: $1 incarnation. Locks: the row.
DELETE FROM dispatcher.replica WHERE incarnation = $1
