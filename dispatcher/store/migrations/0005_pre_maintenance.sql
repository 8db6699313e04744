-- Lets history end by the day, an event be erased, and secrets be sealed anew while replicas read them.
--
-- `pre`: the version before calls neither function, needs no day that they end, and leaves both columns empty.

-- When the data, the bodies and the kept answers of an event were blanked on request.
ALTER TABLE dispatcher.event ADD COLUMN erased_at timestamptz;

-- The ids of the keys that a replica opens secrets with; NULL: it is of a version that does not tell.
ALTER TABLE dispatcher.replica ADD COLUMN key_ids text[];

-- Drops one day of a history table, whole. Returns what became of it:
--   dropped
--   unfinished  deliveries of that day still wait: nothing undelivered is ever dropped
--   needed      the day's deliveries are still kept, and read what lies in this table
--   gone        there is none, another replica was first
--   busy        another replica is at it
-- The table's own lock comes before the partition's, as in every query, so that nobody waits in a circle. A detach
-- needs the strongest lock on the table; it is waited for 200 ms, which is also the longest that others wait
-- behind it, and the caller tries again. Under these locks the deliveries are looked at: what starts a delivery
-- of that day anew has to take it out of delivery_done first. Not CONCURRENTLY: that leaves a pending
-- state behind when it is cut off.
CREATE FUNCTION dispatcher.drop_day(parent text, day date) RETURNS text LANGUAGE plpgsql
SET enable_seqscan = on AS $$
DECLARE
    suffix text := to_char(day, '_YYYYMMDD');
BEGIN
    IF parent NOT IN ('event', 'body', 'delivery_done', 'attempt') THEN
        RAISE EXCEPTION '% is not a table of history', parent;
    END IF;
    IF NOT pg_try_advisory_xact_lock(1684632432, 2) THEN
        RETURN 'busy';
    END IF;
    IF to_regclass('dispatcher.' || parent || suffix) IS NULL THEN
        RETURN 'gone';
    END IF;
    IF EXISTS (SELECT FROM dispatcher.delivery_open AS o WHERE o.day = drop_day.day) THEN
        RETURN 'unfinished';
    END IF;
    IF parent <> 'delivery_done' AND to_regclass('dispatcher.delivery_done' || suffix) IS NOT NULL THEN
        RETURN 'needed';
    END IF;
    PERFORM set_config('lock_timeout', '200ms', true);
    EXECUTE format('LOCK TABLE ONLY dispatcher.%I IN ACCESS EXCLUSIVE MODE', parent);
    EXECUTE format('LOCK TABLE dispatcher.%I IN ACCESS EXCLUSIVE MODE', parent || suffix);
    IF EXISTS (SELECT FROM dispatcher.delivery_open AS o WHERE o.day = drop_day.day) THEN
        RETURN 'unfinished';
    END IF;
    EXECUTE format('ALTER TABLE dispatcher.%I DETACH PARTITION dispatcher.%I', parent, parent || suffix);
    EXECUTE format('DROP TABLE dispatcher.%I', parent || suffix);
    RETURN 'dropped';
END $$;

-- Empties one day of attempts whose deliveries are kept for longer: a resend must find a partition to write to.
-- Done once a day of history, remembered as the partition's comment: the attempts of a later resend stay.
-- Returns emptied, unfinished, gone or busy.
CREATE FUNCTION dispatcher.empty_attempts(day date) RETURNS text LANGUAGE plpgsql
SET enable_seqscan = on AS $$
DECLARE
    part text := 'attempt' || to_char(day, '_YYYYMMDD');
BEGIN
    IF NOT pg_try_advisory_xact_lock(1684632432, 2) THEN
        RETURN 'busy';
    END IF;
    IF to_regclass('dispatcher.' || part) IS NULL
       OR obj_description(to_regclass('dispatcher.' || part), 'pg_class') = 'emptied' THEN
        RETURN 'gone';
    END IF;
    IF EXISTS (SELECT FROM dispatcher.delivery_open AS o WHERE o.day = empty_attempts.day) THEN
        RETURN 'unfinished';
    END IF;
    PERFORM set_config('lock_timeout', '200ms', true);
    EXECUTE format('TRUNCATE TABLE dispatcher.%I', part);
    EXECUTE format('COMMENT ON TABLE dispatcher.%I IS %L', part, 'emptied');
    RETURN 'emptied';
END $$;
