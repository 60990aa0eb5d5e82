"""Whatever a reader stumbles over is one unusable episode."""

import numpy as np
import pytest

from foundry_core.data.config import ImageConfig, WindowConfig
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.convert.read import read_bounded
from foundry_core.data.convert.robot_samples import RobotSettings, stored_episode
from foundry_core.data.robot.episodes import Episode, Frames, UnusableEpisode
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


def broken(step):
    raise OSError("a chunk is damaged")


def test_a_picture_that_breaks_when_it_is_asked_for_is_one_too():
    frames = Frames(3, broken)
    for asked in (0, slice(0, 2), -1):
        with pytest.raises(UnusableEpisode, match=r"picture of step \d is not readable: OSError"):
            frames[asked]
    with pytest.raises(IndexError):
        frames[3]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"is uint8 \[4, 4\], not uint8 \[H, W, 3\]"),
        (np.zeros((4, 4, 3), np.float32), "is float32"),
        (np.zeros((0, 4, 3), np.uint8), "has 0 x 4 pixels"),
        (np.broadcast_to(np.uint8(0), (65500, 65500, 3)), "has 65500 x 65500 pixels"),
    ],
)
def test_pixels_that_are_no_picture_cost_their_episode(pixels, message):
    contract = DataContract().converted(("front",), (), ImageConfig(), {})
    settings = RobotSettings(
        contract=contract, groups=(), window=WindowConfig(), image_steps=(0,),
        image=ImageConfig(), layout="episode", keep_failures=False,
    )  # fmt: skip
    with pytest.raises(UnusableEpisode, match=f"front at step 0 of episode 'e' {message}"):
        stored_episode(changed(images={"front": [pixels, pixels]}), settings)
