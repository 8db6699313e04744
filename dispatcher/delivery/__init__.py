"""From a committed outbox row to a signed, recorded POST.

    producer's transaction
          │ INSERT
          ▼
       outbox ─▶ intake ─▶ fanout ─▶ lanes ─▶ sender ─▶ recorder ─▶ Postgres
                                       ▲                    │ (committed first)
                                    loader ◀── retry timer ◀┘

Each stage imports only the stages after it, so that "go to definition" leads from `Intake` to the SQL
that records (docs/architecture.md lists the hops).

* **intake** decides when to poll the outbox (NOTIFY, a timer, or at once while events stream in)
  and how much to claim, which is never more than lanes have room for. It keeps no cursor.
* **fanout** creates events, bodies and deliveries from outbox rows in the claim's transaction (`batch`).
  The routing table is at least as new as the claim.
* **lanes** hold the ready deliveries of each endpoint and grant permits in turns, within the limits of
  the endpoint, of the host and of the process. No permit bypasses an open breaker or a rate limit.
* **sender** turns a permit and a delivery into one complete result. It uses no task and no await, only
  a write and a callback.
* **recorder** commits results in batches: attempt, state and next due time in one transaction,
  under the shard's token. `endpoint_health` follows up on failures, `reporting` on the rest.
* **retry_timer** holds the due times of waiting deliveries. **loader** reads due deliveries, refills for
  lanes and people's requests from Postgres.
* **inventory** is the register of all deliveries in memory: one entry each, in one phase.
* **shards** is the right to send: a lease, and the endpoints that this replica owns under it.

The HTTP client is `dispatcher/outbound`, which does not depend on deliveries.

Invariants: state changes in Postgres first and in memory second. Inventory and NOTIFY are caches, and a
start is "load the next window". No transaction is open during a request. Only the receiver can block a
delivery that has a permit. An attempt is complete or does not exist. Every queue has a maximum size, and
every await has a time limit.

**Crash**: events that were claimed and not committed are still in the outbox. Committed deliveries are
loaded at the next start, by this replica within seconds, or by another one once the lease has ended.
Requests that were sent and not recorded are sent again (at least once), and nothing else is. **Slow or
absent Postgres**: intake and loader retry with backoff, and the recorder keeps its batch. Once the batch
is full no permit is granted, because results that cannot be recorded must not be produced. **Slow or
dead receiver**: it uses only the permits of its own lane. The lane's window shrinks to a few
deliveries, and the rest waits in Postgres. **Drain**: intake stops, lanes grant no more permits, requests
in flight get their grace period and are then cancelled without a record, the recorder flushes, and the
lease is released.
"""
