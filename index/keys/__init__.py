"""API keys of the service: what is stored of them, where, and the command that makes and revokes them."""
