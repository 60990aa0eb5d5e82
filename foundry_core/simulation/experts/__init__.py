"""Scripted experts of other simulators than Meta-World, an open set: one file each."""
