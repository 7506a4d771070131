"""API keys in the service: which scope an endpoint needs, the keys a worker knows, and their limits."""
