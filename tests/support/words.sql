-- Insertable views over the tables of history, for tests: words in place of codes, ids in place of numbers.
--
-- An endpoint that is named and does not exist is created. A delivery id may be any text: one that is no id of ours
-- stands for a UUID made of its MD5. The schema exists in the template of the tests' databases only.
CREATE SCHEMA words;

CREATE FUNCTION words.uuid(id text) RETURNS uuid LANGUAGE sql IMMUTABLE
RETURN CASE WHEN id ~ '^wh_[0-7][0-9a-hjkmnp-tv-z]{25}$' THEN dispatcher.delivery_uuid(id) ELSE md5(id)::uuid END;

-- An id of an event's delivery with an arbitrary tail.
CREATE FUNCTION words.id(event_id text, unix_ms numeric) RETURNS text LANGUAGE sql IMMUTABLE
RETURN dispatcher.delivery_id((lpad(to_hex(unix_ms::bigint), 12, '0') || '8' || substr(md5(event_id), 1, 3)
                               || '8' || substr(md5(event_id), 4, 15))::uuid);

CREATE FUNCTION words.endpoint(id text, tenant text DEFAULT NULL, profile text DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql AS $$
#variable_conflict use_variable
BEGIN
    INSERT INTO dispatcher.endpoint (id, tenant, name, url, profile, event_types, shard)
    SELECT endpoint.id, coalesce(tenant, 'default'), endpoint.id, 'https://x.test/', coalesce(profile, 'standard'),
           '{test.of_words}', 63
    WHERE NOT EXISTS (SELECT FROM dispatcher.endpoint AS p WHERE p.id = endpoint.id);
    RETURN (SELECT number FROM dispatcher.endpoint AS p WHERE p.id = endpoint.id);
END $$;

-- crc32, bit by bit (core/codes.py).
CREATE FUNCTION words.type_code(word text) RETURNS integer LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    crc bigint := 4294967295;
BEGIN
    FOR i IN 0 .. octet_length(word) - 1 LOOP
        crc := crc # get_byte(convert_to(word, 'UTF8'), i);
        FOR b IN 1 .. 8 LOOP
            crc := CASE WHEN crc & 1 = 1 THEN (crc >> 1) # 3988292384 ELSE crc >> 1 END;
        END LOOP;
    END LOOP;
    crc := crc # 4294967295;
    RETURN CASE WHEN crc > 2147483647 THEN crc - 4294967296 ELSE crc END;
END $$;

CREATE VIEW words.delivery_open AS
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, attempt_count, schedule_position,
           next_attempt_at, created_at, warnings, uuid
    FROM dispatcher.delivery WHERE finished_at IS NULL;
CREATE FUNCTION words.insert_open() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO dispatcher.delivery_open (id, day, event_id, endpoint_no, event_type_code, attempt_count,
                                          schedule_position, next_attempt_at, warnings)
    VALUES (words.uuid(NEW.id), NEW.day, NEW.event_id, words.endpoint(NEW.endpoint_id, NEW.tenant, NEW.profile),
            words.type_code(NEW.event_type), coalesce(NEW.attempt_count, 0),
            coalesce(NEW.schedule_position, CASE NEW.state WHEN 'retrying' THEN 1 ELSE 0 END),
            coalesce(NEW.next_attempt_at, now()), NEW.warnings);
    RETURN NEW;
END $$;
CREATE TRIGGER insert_open INSTEAD OF INSERT ON words.delivery_open FOR EACH ROW EXECUTE FUNCTION words.insert_open();

CREATE VIEW words.delivery_done AS
    SELECT id, day, event_id, endpoint_id, event_type, tenant, profile, state, reason, test, attempt_count,
           schedule_position, created_at, finished_at, warnings, uuid
    FROM dispatcher.delivery WHERE finished_at IS NOT NULL;
CREATE FUNCTION words.insert_done() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO dispatcher.delivery_done (id, day, event_id, endpoint_no, event_type_code, state, reason, test,
                                          attempt_count, schedule_position, finished_at, warnings)
    VALUES (words.uuid(NEW.id), NEW.day, NEW.event_id, words.endpoint(NEW.endpoint_id, NEW.tenant, NEW.profile),
            words.type_code(NEW.event_type),
            array_position(ARRAY['pending', 'retrying', 'succeeded', 'failed', 'cancelled'], NEW.state),
            array_position(ARRAY[$REASONS$], NEW.reason),
            coalesce(NEW.test, false), NEW.attempt_count, NEW.schedule_position, NEW.finished_at, NEW.warnings);
    RETURN NEW;
END $$;
CREATE TRIGGER insert_done INSTEAD OF INSERT ON words.delivery_done FOR EACH ROW EXECUTE FUNCTION words.insert_done();

-- The delivery exists before its attempts. A URL other than the endpoint's becomes a revision of it.
CREATE VIEW words.attempt AS
    SELECT day, delivery_id, attempt_number, trigger, outcome, flags, attempted_at, latency_seconds, dns_seconds,
           connect_seconds, wait_seconds, read_seconds, reused, peer, url, response_code, response_body, error
    FROM dispatcher.attempt_all;
CREATE FUNCTION words.insert_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    d record;
    used integer;
BEGIN
    SELECT v.event_id, v.endpoint_no INTO STRICT d FROM dispatcher.delivery_row AS v
    WHERE v.id = words.uuid(NEW.delivery_id) LIMIT 1;
    SELECT r.revision INTO used FROM dispatcher.endpoint_revision AS r
    WHERE r.endpoint_no = d.endpoint_no AND r.url = NEW.url LIMIT 1;
    IF used IS NULL THEN
        INSERT INTO dispatcher.endpoint_revision (endpoint_no, revision, url, header_names)
        SELECT d.endpoint_no, 1000 + count(*), NEW.url, '{}' FROM dispatcher.endpoint_revision
        RETURNING revision INTO used;
    END IF;
    INSERT INTO dispatcher.attempt (day, event_id, endpoint_no, delivery_id, attempt_number, trigger, outcome, flags,
        attempted_at, latency_seconds, dns_seconds, connect_seconds, wait_seconds, read_seconds, reused, peer,
        revision, response_code, response_body, error)
    VALUES (NEW.day, d.event_id, d.endpoint_no, words.uuid(NEW.delivery_id), NEW.attempt_number,
            array_position(ARRAY['scheduled', 'manual', 'replay', 'test'], NEW.trigger),
            array_position(ARRAY[$OUTCOMES$], NEW.outcome), NEW.flags, NEW.attempted_at, NEW.latency_seconds,
            NEW.dns_seconds, NEW.connect_seconds, NEW.wait_seconds, NEW.read_seconds, NEW.reused, NEW.peer, used,
            NEW.response_code, NEW.response_body, NEW.error);
    RETURN NEW;
END $$;
CREATE TRIGGER insert_attempt INSTEAD OF INSERT ON words.attempt
    FOR EACH ROW EXECUTE FUNCTION words.insert_attempt();

CREATE VIEW words.delivery_request AS
    SELECT dispatcher.delivery_id(q.delivery_id) AS delivery_id, q.kind, q.day, p.id AS endpoint_id, q.requested_at,
           q.requested_by
    FROM dispatcher.delivery_request AS q JOIN dispatcher.endpoint AS p ON p.number = q.endpoint_no;
CREATE FUNCTION words.insert_request() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO dispatcher.delivery_request (delivery_id, kind, day, event_id, endpoint_no, requested_at, requested_by)
    VALUES (words.uuid(NEW.delivery_id), NEW.kind, NEW.day,
            coalesce((SELECT v.event_id FROM dispatcher.delivery_row AS v
                      WHERE v.id = words.uuid(NEW.delivery_id) LIMIT 1), 'unknown'),
            words.endpoint(NEW.endpoint_id), coalesce(NEW.requested_at, clock_timestamp()), NEW.requested_by);
    RETURN NEW;
END $$;
CREATE TRIGGER insert_request INSTEAD OF INSERT ON words.delivery_request
    FOR EACH ROW EXECUTE FUNCTION words.insert_request();
