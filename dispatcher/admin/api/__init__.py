"""The REST API: JSON in and out over the operations, and OpenAPI 3.1 made from the same table.

    request ─▶ dispatch.py ─▶ handler (endpoints, events, deliveries, access) ─▶ operation ─▶ JSON
                  │ body.py, kinds.py: read and judged          table.py: which handler, who may
                  └ problems.py: every error                    requests.py, answers.py: the types
                                                                openapi.py, docs.py: what it says of itself

A handler turns names into arguments and no more: roles, tenants and rules are the operations', which
console and command line share.
"""
