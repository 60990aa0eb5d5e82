"""Faults on purpose: a proxy that misbehaves, for tests of what must hold all the same."""
