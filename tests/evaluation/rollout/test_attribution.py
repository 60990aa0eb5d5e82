"""What a chunk depends on, of policies that depend on what is known."""

import io
import json
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from foundry_core.data.contract.fields import FieldContract
from foundry_core.evaluation.rollout.attribution import FOLDER, attribute
from foundry_core.evaluation.rollout.episodes import plan_episodes, run_episodes
from tests.evaluation.toy_benchmark import FIELD, MEASURED, Line, LineEnvironment, Walker


class Marked(Line):
    """The picture is dark but for its first cell, which says where to go; commands are metres."""

    commands: ClassVar[Mapping[str, FieldContract]] = {
        FIELD: FieldContract(dims=1, quantity="position", unit="m")
    }

    def environment(self, task: str):
        return MarkedEnvironment(self, self.task(task))


class MarkedEnvironment(LineEnvironment):
    def observe(self):
        found = super().observe()
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[:2, :2] = found["images"]["eye"][0, 0]
        return {**found, "images": {"eye": picture}}


class Looking(Walker):
    """Walks a step towards what the first cell says; one less where nobody says "go"."""

    def __init__(self, looks: bool = True) -> None:
        super().__init__(noise=0.0)
        self.looks, self.noises = looks, set()

    def _answer(self, client, observation):
        if client.startswith("attribution"):
            self.noises.add(tuple(self.clients[client]))
        goal = float(observation["images"]["eye"][0, 0, 0]) / 10 if self.looks else -99.0
        slower = 0.0 if "go" in observation["instruction"] else 1.0
        here = float(observation["lowdim"][MEASURED][0])
        return {
            FIELD: np.full(
                (self.horizon, 1), (min(goal, here + 1) if self.looks else goal) - slower
            )
        }


def attributed(tmp_path, policy, count=1):
    benchmark = Marked()
    plans = plan_episodes(benchmark, ("near", "far"), first=0, count=3, seed=0)
    results = run_episodes(benchmark, policy, plans)
    found = attribute(tmp_path, benchmark, policy, plans, results, count=count, execute_steps=None)
    return results, found


def test_a_policy_that_looks_is_moved_by_the_cell_and_the_word_it_reads(tmp_path):
    policy = Looking()
    results, found = attributed(tmp_path, policy)
    assert {r.success for r in results} == {True}
    (one,) = found
    assert (one.task, one.scenario, one.success, one.unit) == ("near", 0, True, "mm")
    first = one.moments[0]
    eye = first.cameras["eye"]
    # The mean of the picture is dark, so it stays at 0 where it would have walked one metre; the
    # first cell's own mean colour is the picture's.
    goal = round(10 * MarkedGoal.of("near", 0))
    covered = round(goal / 64) / 10
    assert eye.cells[0][0] == pytest.approx(1000 * (1 - min(1.0, covered)))
    assert eye.whole == pytest.approx(eye.cells[0][0])
    assert sum(map(sum, eye.cells)) == pytest.approx(eye.cells[0][0])
    assert first.words == [("go", 1000.0), ("near", 0.0)]
    assert first.sentence == 1000.0
    # All that was asked had one seed and one plan.
    assert len(policy.noises) == 1


class MarkedGoal:
    @staticmethod
    def of(task: str, index: int) -> float:
        rng = np.random.default_rng([index, len(task)])
        return float(rng.uniform(2, 6)) * (1 if task == "near" else 2)


def test_a_policy_that_does_not_look_is_moved_by_nothing_it_sees(tmp_path):
    results, found = attributed(tmp_path, Looking(looks=False), count=2)
    assert {r.success for r in results} == {False}
    assert [(one.success, one.scenario) for one in found] == [(False, 0), (False, 1)]
    for one in found:
        for moment in one.moments:
            assert moment.cameras["eye"].whole == 0
            assert not np.any(moment.cameras["eye"].cells)
            assert moment.words[0] == ("go", 1000.0)


def test_what_is_written(tmp_path):
    _, (one,) = attributed(tmp_path, Looking())
    folder = tmp_path / FOLDER
    stated = json.loads((folder / "attribution.json").read_text())["episodes"]
    assert stated[0]["picture"] == one.picture == "near_000000_success.png"
    picture = np.asarray(Image.open(io.BytesIO((folder / one.picture).read_bytes())))
    moments = len(one.moments)
    assert picture.shape == (192 * moments, 2 * 192, 3)
    # The first cell is the warmer the more it counts, the rest as grey as it was.
    counts = [moment.cameras["eye"].cells[0][0] for moment in one.moments]
    firsts = [tuple(picture[192 * row + 5, 192 + 5]) for row in range(moments)]
    assert firsts[int(np.argmax(counts))] == (255, 70, 20)
    assert (picture[24:192, 192 + 24 :] == 0).all()
