"""Shards → the formats of others, one module each."""
