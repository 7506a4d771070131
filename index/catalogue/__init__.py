"""The catalogue of items and the store of users' events: contracts and backends."""
