"""Calls over a network that are made again: one rule for all of them.

A call is repeated only for a reason that may pass (5xx, throttling, timeout, reset; the caller
says which), a bounded number of times, and only where repeating is safe or its outcome can be told
afterwards. The pauses grow and are random, so that workers that failed together do not come back
together.
"""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Retry:
    """attempts: calls in all. The pause after the n-th is between 0 and pause * 2**(n - 1) seconds,
    and never more than `longest`."""

    attempts: int
    pause: float
    longest: float = 5.0

    def call(self, what: str, once: Callable[[], T], transient: Callable[[Exception], bool]) -> T:
        """The result of once(). The last error is raised as it is, at once if it is not transient.

        what: names the call in the log.
        """
        attempt = 1
        while True:
            try:
                return once()
            except Exception as error:
                if attempt == self.attempts or not transient(error):
                    raise
                _log.info("%s failed (%s), attempt %d", what, error, attempt)
            time.sleep(random.uniform(0, min(self.longest, self.pause * 2 ** (attempt - 1))))
            attempt += 1
