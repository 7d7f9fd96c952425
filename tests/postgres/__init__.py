"""The same books on a real PostgreSQL."""
