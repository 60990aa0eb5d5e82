"""What a recorded episode costs beside one that is not: pictures for people, and no other ones."""

import numpy as np

from foundry_core.evaluation.benchmarks.base import Observation
from foundry_core.evaluation.rollout.env_workers import EnvWorker
from tests.evaluation.toy_benchmark import FIELD, MEASURED, Line, LineEnvironment


class Counting(LineEnvironment):
    drawn = 0

    def observe(self) -> Observation:
        type(self).drawn += 1
        return super().observe()


class Telling(Counting):
    def measured(self):
        return {MEASURED: np.array([self._place])}


def played(kind, recording):
    """(observations that were drawn, the track) of six steps, two between two calls."""
    benchmark = Line()
    worker = EnvWorker(benchmark, 0, True)
    worker._new = lambda task: kind(benchmark, benchmark.tasks()[task])
    kind.drawn = 0
    task = next(iter(benchmark.tasks()))
    worker.start(benchmark.scenario(task, 0), recording)
    for _ in range(3):
        result = worker.step([{FIELD: np.array([0.1])}, {FIELD: np.array([-0.1])}])
        assert not result.success
    worker.close()
    return kind.drawn, [dict(before) for before, _ in worker._track]


def test_a_recorded_step_draws_no_camera_where_numbers_can_be_had_alone():
    assert played(Telling, "no") == (4, [])
    drawn, track = played(Telling, "yes")
    assert drawn == 4
    assert played(Counting, "yes") == (10, track)  # one that tells nothing alone is asked as ever
    assert len(track) == 6
    assert track[1][MEASURED] == np.array([0.1])
