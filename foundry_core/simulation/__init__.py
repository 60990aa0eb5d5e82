"""Headless Meta-World: reproducible scenarios, absolute pose targets at 16 Hz, cameras."""
