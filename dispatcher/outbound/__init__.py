"""The HTTP client for every outgoing request; it handles connections and responses, not deliveries."""
