-- Whether producers' commits wake a sleeping dispatcher. Parameters: none. Locks: none.
SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'dispatcher.outbox'::regclass AND tgname = 'outbox_3_notify')
