"""LIBERO and LIBERO-PRO, simulated: suites and words, one task's simulator, scripted experts."""
