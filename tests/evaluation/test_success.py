"""Success at any time, at the end, or held: judged in one place, whatever the benchmark."""

import pytest
from pydantic import ValidationError

from foundry_core.evaluation.rollout.episodes import plan_episodes, run_episodes
from foundry_core.evaluation.success import Held, Judge, criterion
from tests.evaluation.toy_benchmark import MEASURED, Line, Walker


class Visitor(Walker):
    """Walks to the goal, is there for `stay` steps, and walks back."""

    def __init__(self, stay):
        super().__init__(execute_steps=1, noise=0.0)
        self.stay = stay

    def _answer(self, client, observation):
        goal = float(observation["images"]["eye"][0, 0, 0]) / 10
        here = float(observation["lowdim"][MEASURED][0])
        arrived = sum(abs(place - goal) < 0.3 for place in [*self.seen[client], here])
        if arrived < self.stay:
            return super()._answer(client, observation)
        self.seen[client].append(here)
        return {name: 0 * steps for name, steps in super()._answer(client, observation).items()}


def visit(success, stay):
    benchmark = Line(success=success)
    plans = plan_episodes(benchmark, ["near", "far"], first=0, count=3, seed=0)
    return run_episodes(benchmark, Visitor(stay), plans)


def test_ever_ends_at_the_first_success_and_final_goes_on_to_the_last_step():
    ever, final = visit("ever", stay=3), visit("final", stay=3)
    assert all(one.success for one in ever)
    assert not any(one.success for one in final)
    assert {one.task: one.steps for one in final} == {"near": 12, "far": 30}
    assert all(one.success for one in visit("final", stay=99))


def test_held_needs_its_steps_on_end():
    ever, held = visit("ever", stay=3), visit({"held": 3}, stay=3)
    assert [one.steps for one in held] == [one.steps + 2 for one in ever]
    assert all(one.success for one in held)
    assert not any(one.success for one in visit({"held": 4}, stay=3))
    judge = Judge(Held(held=2), at_start=True)
    for solved in (True, False, True):
        judge.step(solved)
        assert not judge.decided
    judge.step(True)
    assert judge.decided


def test_what_counts_is_said_in_words():
    assert criterion("ever", [100, 100]) == "success at any time within 100 steps"
    assert criterion("final", [30, 12]) == "success after the last of 12 to 30 steps"
    assert criterion(Held(held=8), [100]) == "success held for 8 steps within 100 steps"
    with pytest.raises(ValidationError):
        Line(success={"held": 0})
