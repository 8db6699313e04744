"""The HTTP client that every request leaves by; it knows connections and responses, and no delivery."""
