"""A stage that asks for more GPUs than there are is refused before anything starts."""

import pytest

from flows.dispatch import inline
from flows.dispatch.inline import Inline
from flows.dispatch.remote import RemoteBackend
from flows.runs.engine import PipelineRun
from foundry_core.errors import FoundryError
from foundry_core.identity import environment
from foundry_core.identity.environment import visible_gpus
from foundry_core.pipeline.stage import Resources
from tests.runs import prepared


def test_a_run_here_names_stage_wanted_and_present(small_home, monkeypatch):
    monkeypatch.setattr(inline, "visible_gpus", lambda: 1)
    run = PipelineRun(prepared("model.resources.gpus=2"))
    with pytest.raises(FoundryError, match="'model' asks for 2 GPUs, this machine has 1") as error:
        run.start()
    assert "--dispatch" in error.value.hint
    assert not run.folder.exists(), "nothing was recorded"
    run = PipelineRun(prepared("model.resources.gpus=1"))
    run.check_resources()


def test_what_works_elsewhere_is_not_counted_here(monkeypatch):
    monkeypatch.setattr(inline, "visible_gpus", lambda: 0)
    Inline().check("model", Resources())
    RemoteBackend.check(Elsewhere(), "model", Resources(gpus=8))


class Elsewhere(RemoteBackend):
    submit = status = cancel = describe = away = None


@pytest.mark.parametrize(
    ("chosen", "count"), [(None, 2), ("", 0), ("-1", 0), ("1", 1), ("0,1,2", 2)]
)
def test_gpus_are_those_that_a_process_may_use(monkeypatch, chosen, count):
    monkeypatch.setattr(environment, "gpu_names", lambda: ["H100", "H100"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == count
