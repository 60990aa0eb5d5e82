"""Maps come back in order, in this process or on Ray, and raise what the function raised."""

import os

import pytest

from foundry_core.errors import FoundryError
from foundry_core.parallel import _start_local, ordered_map, ray_map, ray_session
from tests.parallel_functions import pid, refuse, slow_square


def test_one_worker_stays_in_this_process(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert set(ordered_map(pid, range(3), workers=1)) == {os.getpid()}
    assert list(ordered_map(slow_square, [3, 1, 2], workers=1)) == [9, 1, 4]


@pytest.mark.slow("starts Ray")
def test_ray_keeps_order_raises_the_functions_own_error_and_may_be_left_early():
    with ray_session(2):
        assert list(ray_map(slow_square, range(20), workers=2)) == [n * n for n in range(20)]
        assert os.getpid() not in set(ordered_map(pid, range(4), workers=2))
        results = ray_map(refuse, range(5), workers=2)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(FoundryError, match="item 2 is wrong") as caught:
            next(results)
        assert caught.value.hint == "leave it out"
        early = ray_map(slow_square, range(100), workers=2)
        assert next(early) == 0
        early.close()
        assert list(ray_map(slow_square, [4], workers=2)) == [16]


def test_a_local_ray_that_is_slow_to_come_up_is_started_again(monkeypatch):
    ray, calls = pytest.importorskip("ray"), []

    def slow(**_):
        calls.append("init")
        if len(calls) < 4:
            raise Exception("The current node timed out during startup. This could happen ...")

    monkeypatch.setattr(ray, "init", slow)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    _start_local(1, None)
    assert calls == ["init", "shutdown", "init", "shutdown", "init"]

    def broken(**_):
        raise ValueError("no such option")

    monkeypatch.setattr(ray, "init", broken)
    with pytest.raises(ValueError, match="no such option"):
        _start_local(1, None)
