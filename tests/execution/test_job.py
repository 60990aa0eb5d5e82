"""A job survives the trip to another process as JSON."""

import json

import pytest

from flows.dispatch.base import Backend
from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.errors import FoundryError
from foundry_core.execution.job import StageJob
from foundry_core.execution.runner import execute
from foundry_core.store.open import open_store
from tests.support import WORDS


class Capture(Backend):
    """Executes here what arrived as JSON, and keeps it."""

    name = "capture"

    def __init__(self):
        self.jobs = {}

    def run(self, job, store, events, *, observe, cancelled):
        text = json.dumps(job.to_json())
        self.jobs[job.spec.name] = text
        return execute(StageJob.from_json(json.loads(text), store), store, events)


@pytest.fixture
def sent(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    capture = Capture()
    run = PipelineRun(prepare(Request(pipeline=str(WORDS))), backend=capture)
    run.start()
    for name in run.affected():
        run.stage(name, "prefect:flow-run/f")
    return run, capture.jobs


def test_a_job_that_travelled_builds_the_same_artifact(sent):
    run, jobs = sent
    assert run.artifact("model").key == run.prepared.specs["model"].key
    assert max(map(len, jobs.values())) < 4000
    job = StageJob.from_json(json.loads(jobs["model"]), run.prepared.store)
    assert job.inputs["text"].popitem()[1] == run.artifact("first")
    assert job.job_ref == "prefect:flow-run/f"


def test_a_worker_with_another_store_is_told(sent, tmp_path):
    _, jobs = sent
    with pytest.raises(FoundryError, match=r"input emit/\w+ is not in the store .*elsewhere"):
        StageJob.from_json(json.loads(jobs["model"]), open_store(str(tmp_path / "elsewhere")))


def test_a_job_of_another_version_is_refused(sent):
    run, jobs = sent
    job = json.loads(jobs["first"])
    del job["force"]
    with pytest.raises(FoundryError, match=r"wrong here: force, haste"):
        StageJob.from_json(job | {"haste": 1}, run.prepared.store)


def test_a_worker_knows_the_code_that_the_coordinator_fingerprinted(sent):
    """It names what changed, and drops bytecode that is older."""
    run, jobs = sent
    spec = run.prepared.specs["model"]
    sent_spec = json.loads(jobs["model"])["spec"]
    assert sent_spec["functions"] == {}
    job = StageJob.from_json(json.loads(jobs["model"]), run.prepared.store)
    assert (job.spec.functions, job.spec.recipe) == (spec.functions, spec.recipe)
    assert job.spec == spec


def test_a_spec_with_another_field_is_refused(sent):
    run, jobs = sent
    job = json.loads(jobs["first"])
    job["spec"]["haste"] = 1
    with pytest.raises(FoundryError, match=r"the spec of a stage has exactly .*wrong here: haste"):
        StageJob.from_json(job, run.prepared.store)
