"""Who says which variants a search tries next. One module each: see docs/extending.md."""
