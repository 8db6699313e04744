"""Pushes committed events to webhook endpoints: from an outbox row to a signed, recorded POST."""

__version__ = "0.1.0"
