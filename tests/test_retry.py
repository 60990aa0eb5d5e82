"""The one rule by which calls over a network are made again."""

import pytest

from foundry_core import retry
from foundry_core.retry import Retry


class Failing:
    """Fails so often, then answers."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def __call__(self):
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def is_transient(error):
    return isinstance(error, TimeoutError)


@pytest.fixture
def pauses(monkeypatch):
    """The longest pauses that were allowed, instead of pauses."""
    taken = []
    monkeypatch.setattr(retry.random, "uniform", lambda low, high: taken.append(high) or 0.0)
    return taken


def test_transient_errors_are_waited_out_with_growing_pauses(pauses):
    rule = Retry(attempts=6, pause=1.0, longest=5.0)
    failing = Failing(*[TimeoutError()] * 5)
    assert rule.call("ask", failing, is_transient) == "answer"
    assert pauses == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_the_last_error_is_raised_after_so_many_attempts(pauses):
    failing = Failing(*[TimeoutError(str(number)) for number in range(9)])
    with pytest.raises(TimeoutError, match="2"):
        Retry(attempts=3, pause=1.0).call("ask", failing, is_transient)
    assert len(pauses) == 2


def test_other_errors_are_raised_at_once(pauses):
    failing = Failing(ValueError("no"), TimeoutError())
    with pytest.raises(ValueError, match="no"):
        Retry(attempts=3, pause=1.0).call("ask", failing, is_transient)
    assert pauses == []
