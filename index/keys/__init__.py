"""API keys of the service: their stores, and the command that creates and revokes them."""
