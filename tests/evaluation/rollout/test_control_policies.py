"""Controls: what an exam gives away to what has learned nothing."""

import numpy as np
import pytest

from foundry_core.evaluation.benchmarks.base import load_benchmark
from foundry_core.evaluation.rollout.controls import Control
from foundry_core.evaluation.rollout.episodes import plan_episodes, run_episodes
from foundry_core.simulation.catalog import XYZ
from tests.evaluation.toy_benchmark import Line


def played(benchmark, control, tasks=("near", "far"), count=6):
    """Steps of each episode that succeeded, 0 of each that did not."""
    plans = plan_episodes(benchmark, tasks, first=0, count=count, seed=0)
    results = run_episodes(benchmark, control, plans)
    return [one.steps if one.success else 0 for one in results]


def test_still_holds_where_it_began_and_drift_follows_what_it_measures():
    sagging = Line(sag=0.3)
    assert not any(played(sagging, Control(sagging, "still")))
    assert not any(played(Line(), Control(Line(), "drift")))
    every_step = played(sagging, Control(sagging, "drift"))
    assert sum(map(bool, every_step)) == 6
    assert not any(played(sagging, Control(sagging, "drift", execute_steps=30)))


def test_nothing_is_drawn_for_a_control():
    class Looking(Control):
        def infer(self, requests):
            seen.extend(observation["images"] for _, observation in requests)
            return super().infer(requests)

    seen = []
    played(Line(), Looking(Line(), "still"))
    assert seen == [{}] * 12


@pytest.mark.slow("plays dozens of episodes")
def test_metaworld_known_counts():
    """The handle does not give way by itself: a hand that is told to stay where it is measured to
    be sinks, and presses it."""
    benchmark = load_benchmark("metaworld")
    tasks = ("handle-press-v3", "window-open-v3")
    assert played(benchmark, Control(benchmark, "still"), tasks) == [0] * 12
    drifting = Control(benchmark, "drift", execute_steps=3)
    assert played(benchmark, drifting, tasks) == [0, 82, 0, 52, 51, 53] + [0] * 6

    environment = benchmark.unseen_environment(tasks[0])
    environment.reset(benchmark.scenario(tasks[0], 0))
    before = environment.observe()
    assert before["images"] == {}
    for _ in range(100):
        environment.act(benchmark.still(before))
    moved = environment.observe()["lowdim"][XYZ] - before["lowdim"][XYZ]
    assert np.abs(moved).max() < 0.005
    environment.close()
