"""What people can ask of a dispatcher: the one path that command line, API and console share.

An operation takes an `Actor` and values as they were given, judges them all, and answers an object
that is ready to be written as JSON. What is always true: every fault of the input is told at once;
another tenant's things do not exist; a change of an endpoint or a delivery and its line in the
audit log commit together; a secret is whole only in the answers of create, rotate and reveal.
Operations work on the database alone and need no running daemon: what a daemon has to know it
learns from the routing version and the requests that were written.
"""
