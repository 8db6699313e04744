"""A receiver written as the Humansoft document tells accepts every delivery under `humansoft`.

Such a receiver lets Express parse the body and verifies over the body written again by JavaScript.
"""

import base64

import orjson
from hypothesis import example, given, settings

from dispatcher.core.envelope import BODY_OVER_100KB, encode, make_test_event
from tests.wire.json_texts import objects
from tests.wire.node_process import NodeProcess, needs_node, node
from tests.wire.vectors import NOW, PROFILES, SECRETS, event, head, headers_of

HUMANSOFT = PROFILES["humansoft"]

# body-parser decodes the raw bytes as UTF-8 and parses them; the rest is the receiver's own code.
EXPRESS = f"""
const crypto = require('crypto');
const secret = {orjson.dumps(SECRETS["humansoft"]).decode()};
function answerTo(request) {{
  const raw = Buffer.from(request.body, 'base64');
  const req = {{ headers: request.headers, body: JSON.parse(raw.toString('utf8')) }};
  const signature = req.headers['x-webhook-signature'];
  const timestamp = req.headers['x-webhook-timestamp'];
  if ({NOW} - parseInt(timestamp, 10) > 300) throw new Error('expired');
  const again = JSON.stringify(req.body);
  const expected = 'sha256=' + crypto.createHmac('sha256', secret)
    .update(timestamp + '.' + again).digest('hex');
  if (!crypto.timingSafeEqual(Buffer.from(signature), Buffer.from(expected))) {{
    throw new Error('invalid signature');
  }}
  return 'accepted';
}}
"""


def is_accepted(process: NodeProcess, body: bytes) -> bool:
    headers = headers_of(head("humansoft", body, [SECRETS["humansoft"]]))
    lower = {name.lower(): value for name, value in headers.items()}
    question = {"headers": lower, "body": base64.b64encode(body).decode()}
    return process.ask(question) == b"accepted"


@needs_node
def test_an_express_receiver_accepts_every_delivery() -> None:
    many_keys = "{" + ",".join(f'"{index * 7 % 5000}":{index}.0' for index in range(5000)) + "}"
    with node(EXPRESS) as process:

        @given(objects)
        @settings(max_examples=150, deadline=None)
        @example('{"ชื่อ": "สมชาย ใจดี", "a": 12.0, "b": -0.0, "c": 1e21, "d": 1e400}')
        @example('{"10": 1, "9": 2, "x": "\\ud800 \\/ \\u0041 \\u2028", "x": "\\u0e2a"}')
        @example(many_keys)
        def accepted(data: str) -> None:
            assert is_accepted(process, encode(HUMANSOFT, event(data)).body)

        accepted()


@needs_node
def test_an_express_receiver_would_refuse_the_text_as_written() -> None:
    with node(EXPRESS) as process:
        assert not is_accepted(process, b'{"request_id":"req_1","body":{"a": 12.0}}')


@needs_node
def test_an_express_receiver_accepts_the_test_event() -> None:
    made = make_test_event(
        HUMANSOFT,
        event_type=None,
        data=None,
        sample=None,
        random_hex="a90b78b79dadff88",
        endpoint_id="ep_1",
        endpoint_name='ระบบ "HR"\n',
        tenant="default",
        now=event().occurred_at,
    )
    with node(EXPRESS) as process:
        assert is_accepted(process, made.body)


def test_a_body_that_express_would_refuse_for_its_size_carries_a_warning() -> None:
    room = 100 * 1024 - len(encode(HUMANSOFT, event('{"a":""}')).body)
    fits = encode(HUMANSOFT, event('{"a":"' + "x" * room + '"}'))
    over = encode(HUMANSOFT, event('{"a":"' + "x" * (room + 1) + '"}'))
    assert (len(fits.body), fits.warnings) == (102_400, ())
    assert over.warnings == (BODY_OVER_100KB,)
