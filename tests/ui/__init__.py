"""Prefect's UI in a real browser: forms, run pages, pictures for the documentation."""
