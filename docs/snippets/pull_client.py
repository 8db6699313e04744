"""Fetches webhook deliveries from a dispatcher, for receivers behind a firewall. Needs Python 3.9 and its library only.

DISPATCHER_URL=https://dispatcher.example DISPATCHER_ENDPOINT=ep_… DISPATCHER_TOKEN=dsp_… python pull_client.py
"""

import json
import os
import time
import urllib.request

URL = os.environ["DISPATCHER_URL"].rstrip("/")
ENDPOINT = os.environ["DISPATCHER_ENDPOINT"]
TOKEN = os.environ["DISPATCHER_TOKEN"]
POLL = f"{URL}/api/v1/endpoints/{ENDPOINT}/poll"


def call(method, url, value=None):
    """Call the API; a poll returns after 30 s at the latest."""
    data = None if value is None else json.dumps(value).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def handle(delivery):
    """Process one delivery; an exception rejects it, and it is returned again later.

    `delivery["headers"]` and `delivery["body"]` are those of a webhook request. Verify the signature if others can
    reach your dispatcher, and keep the ids that you have processed: a delivery may be returned more than once.
    """
    event = json.loads(delivery["body"])
    print(delivery["delivery_id"], delivery["event_type"], event, flush=True)


def result_of(delivery):
    """Return the result of a delivery, with the status that a webhook receiver would return."""
    try:
        handle(delivery)
    except Exception as error:
        return {"lease_id": delivery["lease_id"], "response_code": 500, "error": repr(error)[:200]}
    return {"lease_id": delivery["lease_id"], "response_code": 200}


def main():
    """Poll until the process is stopped; after an error wait, at most a minute."""
    pause = 1
    while True:
        try:
            page = call("GET", f"{POLL}?limit=10&wait_seconds=30&lease_seconds=60")
            results = [result_of(delivery) for delivery in page["items"]]
            if results:
                call("POST", POLL, {"results": results})
            pause = 1
        except (OSError, ValueError) as error:  # urllib's errors are OSErrors
            print(f"the dispatcher cannot be reached: {error}", flush=True)
            time.sleep(pause)
            pause = min(pause * 2, 60)


if __name__ == "__main__":
    main()
