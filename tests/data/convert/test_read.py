"""Whatever a reader stumbles over is one unusable episode."""

import numpy as np
import pytest

from foundry_core.data.convert.read import read_bounded
from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.sources.base import SourceRef
from foundry_core.errors import FoundryError

REF = SourceRef(name="file 3", files=("x",))
GOOD = Episode(
    id="e", task="t", hz=10, success=None, instructions={"original": ["go"]},
    lowdim={"x": np.zeros((2, 1))}, images={},
)  # fmt: skip


class Source:
    def __init__(self, found):
        self.found = found

    def read_episode(self, ref):
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found


def changed(**fields) -> Episode:
    return Episode(**vars(GOOD) | fields)


def test_a_good_episode_comes_through():
    assert read_bounded(Source(GOOD), REF) is GOOD


@pytest.mark.parametrize(
    "error",
    [
        KeyError("hz"),
        ZeroDivisionError(),
        RecursionError(),
        MemoryError(),
        UnicodeDecodeError("utf-8", b"", 0, 1, "bad"),
        FoundryError("not this", "mend it"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_exception_is_an_unusable_episode_that_names_its_place(error):
    with pytest.raises(UnusableEpisode, match="file 3 is not readable") as caught:
        read_bounded(Source(error), REF)
    assert caught.value.hint


def test_an_interruption_is_none_of_the_datas_doing():
    with pytest.raises(KeyboardInterrupt):
        read_bounded(Source(KeyboardInterrupt()), REF)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lowdim": {}}, "no steps"),
        ({"lowdim": {"x": np.zeros((0, 1))}}, "no steps"),
        ({"lowdim": {"x": np.zeros((2, 1)), "y": np.zeros((3, 1))}}, "not readable"),
        ({"lowdim": {"x": np.broadcast_to(np.zeros(1), (1_000_001, 1))}}, "at most 1000000"),
        ({"hz": "ten"}, "rate 'ten'"),
        ({"hz": None}, "rate None"),
        ({"hz": float("nan")}, "rate nan"),
        ({"hz": True}, "rate True"),
        ({"instructions": {"original": ["\ud800"]}}, "valid Unicode"),
        ({"instructions": {"original": [3]}}, "valid Unicode"),
        ({"id": "../up"}, "cannot name a file"),
        ({"id": ""}, "cannot name a file"),
        ({"task": None}, "valid Unicode"),
    ],
)
def test_nonsense_is_refused_with_the_value(fields, message):
    with pytest.raises(UnusableEpisode, match=message):
        read_bounded(Source(changed(**fields)), REF)
