"""Fault rounds: runs that are killed at random instants, and an independent checker."""
