"""Which stages a run submits, in what order, and what it says while it goes on."""

import pytest

from flows.console import Console
from flows.runs.engine import PipelineRun
from flows.runs.events import StageFailedEvent, StageFinished, StageProgress, StageStarted
from flows.runs.walk import Ended, StagesFailed
from tests.runs import prepared


class Recorder:
    """Submits nothing: stages of `fail` do not come through."""

    def __init__(self, *fail):
        self.submitted, self._fail = [], fail

    def __call__(self, run, name, upstream):
        self.submitted.append(name)
        return Ended(name not in self._fail and all(one.completed() for one in upstream))


def test_upstream_comes_first_and_nothing_else_is_waited_for(small_home):
    submit = Recorder()
    PipelineRun(prepared()).walk(submit)
    assert submit.submitted == ["first", "second", "model", "total"]


def test_a_failure_is_named_with_all_that_needs_it(small_home):
    run = PipelineRun(prepared())
    with pytest.raises(StagesFailed, match=r"^stages not completed: first, model, total$"):
        run.walk(Recorder("first"))
    assert not run.cancelled.is_set()


def test_an_interruption_reaches_the_stages(small_home):
    def interrupt(*_):
        raise KeyboardInterrupt

    run = PipelineRun(prepared())
    with pytest.raises(KeyboardInterrupt):
        run.walk(interrupt)
    assert run.cancelled.is_set()


def test_a_run_says_what_happens_and_prints_nothing(small_home, capfd):
    seen = []
    run = PipelineRun(prepared("second.fail=true"), observe=seen.append)
    run.start()
    with pytest.raises(StagesFailed):
        run.walk()
    run.finish("failed")
    assert capfd.readouterr() == ("", "")
    kinds = [type(event) for event in seen if not isinstance(event, StageProgress)]
    assert kinds.count(StageStarted) == 3
    assert kinds.count(StageFinished) == 2
    (failed,) = [event for event in seen if isinstance(event, StageFailedEvent)]
    assert (failed.name, failed.cancelled) == ("second", False)
    console = Console()
    for event in seen:
        console.observe(event)
    shown = capfd.readouterr().err
    for words in ("first: starts", "second: failed: ", "model: done in"):
        assert words in shown
