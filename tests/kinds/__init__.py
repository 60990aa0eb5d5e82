"""Small stage kinds for tests of the machinery: real stages, trivial work."""
