"""From a committed outbox row to a signed, recorded POST.

    producer's transaction
          │ INSERT
          ▼
       outbox ─▶ intake ─▶ fanout ─▶ lanes ─▶ sender ─▶ recorder ─▶ Postgres
                                       ▲                    │ (committed first)
                                    loader ◀── retry timer ◀┘

Each stage imports the ones that it hands its work to, and none that comes before it: "go to
definition" leads from `Intake` to the SQL that records (docs/architecture.md has the hops).

* **intake** decides when to poll the outbox (NOTIFY, a timer, or at once while events stream in)
  and how much to claim: never more than lanes have room for. It keeps no cursor.
* **fanout** makes events, bodies and deliveries of outbox rows in the claim's transaction (`batch`).
  The routing table is at least as new as the claim.
* **lanes** keep what is ready for each endpoint and hand out permits in turns, within the limits of
  the endpoint, of the host and of the process, past no open breaker and no rate.
* **sender** makes one complete result of a permit and a delivery. No task, no await: a write, and a
  callback.
* **recorder** commits results in batches: attempt, state and next due time in one transaction,
  under the shard's token. `endpoint_health` follows up on failures, `reporting` on the rest.
* **retry_timer** keeps the due times of what waits; **loader** reads from Postgres what is due, what
  lanes lack and what people ask for.
* **inventory** is the register of all deliveries in memory: one entry each, in one phase.
* **shards** is the right to send: a lease, and the endpoints that are ours under it.

The HTTP client is `dispatcher/outbound`, which knows no delivery.

What is always true: Postgres first, memory second. Inventory and NOTIFY are caches; a start is
"load the next window". No transaction is open while a request is. Nothing waits inside a held
permit but the receiver. An attempt is complete or does not exist. Every queue has a size and every
await a bound.

**Crash**: what was claimed and not committed is still in the outbox; what was committed is loaded
at the next start, by this replica within seconds or by another once the lease has ended; what was
sent and not recorded is sent again (at least once), and nothing else is. **Slow or absent
Postgres**: intake and loader retry with backoff, the recorder keeps its batch, and once it is full
no permit is given, since results that cannot be recorded must not be made. **Slow or dead
receiver**: it costs its own lane its own permits; the lane's window shrinks to a few deliveries,
the rest waits in Postgres. **Drain**: intake stops, lanes give no more permits, what is in flight
gets its grace and is then cancelled without a trace, the recorder flushes, the lease is released.
"""
