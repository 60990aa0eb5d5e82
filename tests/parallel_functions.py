"""Functions for tests of the parallel map: Ray workers import them by this module's name."""

import os
import time

from foundry_core.errors import FoundryError


def slow_square(n: int) -> int:
    time.sleep(0.02 * (n % 3))
    return n * n


def pid(_: int) -> int:
    return os.getpid()


def refuse(n: int) -> int:
    if n == 2:
        raise FoundryError(f"item {n} is wrong", "leave it out")
    return n
