"""Chains of stages: the longest is what a run waits for."""

import threading

from flows.dispatch.slots import Slots
from flows.runs.engine import PipelineRun
from flows.runs.local import carried_out, walk_in_threads
from flows.runs.urgency import Urgencies
from tests.runs import prepared

NEEDS = {"text": [], "demos": [], "llm": ["text"], "vla": ["llm", "demos"], "exam": ["llm"]}


def test_urgency_is_the_longest_chain_that_begins_with_a_stage():
    found = Urgencies(NEEDS, {"text": 10, "demos": 100, "llm": 50, "vla": 300, "exam": 5})
    assert {name: found.of(name) for name in NEEDS} == {
        "text": 360,
        "demos": 400,
        "llm": 350,
        "vla": 300,
        "exam": 5,
    }
    assert found.of("of another walk") == 0


def test_what_nobody_knows_counts_as_half_a_minute():
    found = Urgencies(NEEDS, {"llm": 50, "vla": None})
    assert [found.of(name) for name in NEEDS] == [110, 60, 80, 30, 30]


def test_what_begins_now_waited_for_nothing_else():
    found = Urgencies(NEEDS)
    assert found.at_once() == ["text", "demos"]
    assert found.begin_after("llm", {"text", "llm"}) == ["exam"]
    assert found.begin_after("llm", {"text", "llm", "demos"}) == ["vla", "exam"]
    assert found.begin_after("exam", {"exam"}) == []


def test_a_run_with_one_cpu_follows_its_longest_chain(small_home):
    """words: first → model, first and second → total. The model takes longest, so `first` goes
    before `second`, and `model`, which asks for a CPU after it, before it too."""
    request = prepared()
    for name, row in request.plan.stages.items():
        object.__setattr__(row, "estimated_seconds", 100.0 if name == "model" else 1.0)
    run = PipelineRun(request, slots=Slots(1))
    order, execute = [], run._backend.run

    def noting(job, *args, **named):
        order.append(job.spec.name)
        return execute(job, *args, **named)

    run._backend.run = noting
    result = carried_out(run, threading.Lock(), lambda: walk_in_threads(run))
    assert result["status"] == "succeeded"
    assert order == ["first", "model", "second", "total"]
