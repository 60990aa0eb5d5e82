"""Optimisation: one loop, its objectives, schedules, averages and checkpoints."""
