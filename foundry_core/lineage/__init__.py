"""Lineage: immutable events are the truth, DuckDB is the index people query."""
