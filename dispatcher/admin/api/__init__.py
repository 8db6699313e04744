"""The REST API: JSON requests and responses over the operations, and OpenAPI 3.1 from the same route table.

    request ─▶ dispatch.py ─▶ handler (endpoints, events, deliveries, access) ─▶ operation ─▶ JSON
                  │ body.py, kinds.py: parse and validate       table.py: routes and permissions
                  └ problems.py: every error                    requests.py, answers.py: types
                                                                openapi.py, docs.py: documentation

A handler only maps parameters to arguments. Roles, tenants and rules belong to the operations, which the
console and the command line share.
"""
