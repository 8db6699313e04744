"""The use cases of a dispatcher: the one path that command line, API and console share.

An operation takes an `Actor` and a request, and returns a resource (`dispatcher/admin/resources`).
Invariants: all problems of a request are reported together; another tenant's resources do not
exist; a change of an endpoint or a delivery and its entry in the audit log commit together; a
secret is whole only in the responses of create, rotate and reveal. Operations work on the database
alone and need no running daemon: a daemon learns of a change from the routing version and from
stored requests.
"""
