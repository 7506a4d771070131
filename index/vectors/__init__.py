"""Vector indexes: exact, approximate and GPU search over rows."""
