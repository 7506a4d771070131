"""The HTTP API: schemas, routes, error responses, middleware."""
