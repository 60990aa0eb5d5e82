"""Where stages with GPUs run, as far as it can be tried without a server or a cluster."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from flows.dispatch.base import BACKENDS, Backend, make_backend
from flows.dispatch.ray_job import RayJob, reservation
from flows.dispatch.remote import RemoteBackend, Status, Submission, next_name, number_of
from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.config import registry
from foundry_core.config.overrides import parse_override
from foundry_core.errors import FoundryError
from foundry_core.execution.job import Interrupted, StageFailed, outcome_of
from foundry_core.execution.ray_entry import FAILED, MARK, STOPPED, last_progress
from foundry_core.execution.runner import execute
from foundry_core.lineage.events import EventLog
from foundry_core.training.config import TrainResources
from tests.orchestration import free_port, until
from tests.support import WORDS


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    return tmp_path / "home"


class Elsewhere(Backend):
    """Trains in `python -m foundry_core.execution.ray_entry`, as a job system would."""

    name = "elsewhere"

    def __init__(self):
        self.process = None

    def remote(self, resources):
        return True

    def start(self, job, store):
        sent = json.dumps({"job": job.to_json(), "store": store.uri})
        return subprocess.Popen(
            [sys.executable, "-m", "foundry_core.execution.ray_entry"],
            env={**os.environ, "FOUNDRY_JOB": sent, "FOUNDRY_RAY_JOB": "job-1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, job, store, events, *, observe, cancelled):
        if job.spec.kind != "train":
            return execute(job, store, events)
        self.process = self.start(job, store)
        if job.spec.recipe.seconds > 10:
            until(lambda: list(store.holders()), 60, "it works")
            time.sleep(1.0)
            self.process.send_signal(signal.SIGTERM)
        self.out, self.err = self.process.communicate(timeout=120)
        if self.process.returncode:
            raise RuntimeError(f"exit code {self.process.returncode}")
        return outcome_of(job, store)


def run_elsewhere(*overrides):
    pairs = tuple(parse_override(text) for text in overrides)
    place = Elsewhere()
    run = PipelineRun(prepare(Request(pipeline=str(WORDS), overrides=pairs)), backend=place)
    run.start()
    run.stage("first")
    return run, place


def test_a_remote_job_commits_to_the_shared_store():
    run, place = run_elsewhere()
    outcome = run.stage("model")
    assert outcome.action == "run"
    assert outcome.attempt == "a1"
    assert last_progress(place.out) is not None


def test_a_stopped_remote_job_ends_at_once_and_frees_its_lease():
    run, place = run_elsewhere("model.seconds=600")
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=f"exit code {STOPPED}"):
        run.stage("model")
    assert time.monotonic() - began < 60
    key = run.prepared.specs["model"].key
    assert key not in dict(run.prepared.store.holders())
    assert "cancelled" in place.err


def test_a_remote_job_without_its_input_says_so(home):
    run, place = run_elsewhere()
    built = run.prepared.store.root / "emit" / run.artifact("first").key
    built.rename(built.with_name("away"))
    with pytest.raises(RuntimeError, match=f"exit code {FAILED}"):
        run.stage("model")
    assert "is not in the store" in place.err


def test_progress_is_the_last_line_of_its_kind():
    log = f'{MARK}{{"done": 1}}\nnoise\n{MARK}{{"done": 2}}\nmore noise'
    assert last_progress(log) == {"done": 2}
    assert last_progress("nothing") is None


@pytest.mark.parametrize(("key", "number"), [("ab-a3", 3), ("ab-a12", 12), (None, 0), ("x-abc", 0)])
def test_attempts_are_numbered_by_idempotency_key(key, number):
    assert number_of(key) == number


@pytest.mark.parametrize(
    ("resources", "reserved"),
    [
        ({"cpus": 4, "gpus": 0.25}, {"entrypoint_num_cpus": 4, "entrypoint_num_gpus": 0.25}),
        ({"cpus": 2, "gpus": 0}, {"entrypoint_num_cpus": 2}),
        ({"cpus": 8, "gpus": 8}, {"entrypoint_num_cpus": 0}),
        ({"num_workers": 2}, {"entrypoint_num_cpus": 0}),
    ],
)
def test_what_a_ray_job_reserves(resources, reserved):
    assert reservation(TrainResources(**resources)) == reserved


class Queue(RemoteBackend):
    """A queue in which every submission ends as foretold; what completes was built here."""

    name = "queue"
    poll_seconds = 0.01

    def __init__(self, *ends, mine=True):
        self.ends, self.mine = list(ends), mine
        self.known, self.done = [], []

    def submit(self, job, store):
        self.job, self.store = job, store
        self.known.append(next_name(job.spec.key, self.known))
        return Submission(ref=self.known[-1], mine=self.mine)

    def status(self, submission):
        end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        if end.state == "completed":
            execute(self.job, self.store, EventLog(self.store.events_uri))
        return end

    def cancel(self, submission, reason):
        self.done.append(("cancel", submission.ref))

    def release(self, submission):
        self.done.append(("release", submission.ref))

    def describe(self, submission):
        return f"queue {submission.ref}"

    def away(self, error):
        return isinstance(error, ConnectionError)


def queued(queue, *overrides):
    """A run whose stage `model` asks for half a GPU."""
    pairs = [parse_override(text) for text in (*overrides, "model.resources.gpus=0.5")]
    request = Request(pipeline=str(WORDS), overrides=tuple(pairs))
    run = PipelineRun(prepare(request), backend=queue)
    run.start()
    run.stage("first")
    assert queue.known == [], "a stage without GPUs stays here"
    return run


def status(state, **more):
    return Status(state=state, **more)


def test_a_lost_submission_is_repeated_under_the_next_name():
    queue = Queue(status("open", progress={"done": 1}), status("lost"), status("completed"))
    run = queued(queue)
    key = run.prepared.specs["model"].key
    assert run.stage("model").action == "run"
    assert queue.known == [f"{key}-a1", f"{key}-a2"]
    assert queue.done == [("release", name) for name in queue.known]
    assert queued(Queue()).stage("model").action == "reuse"


def test_what_is_lost_again_and_again_fails_with_its_last_words():
    queue = Queue(*[status("lost", message="out of memory")] * 3)
    run = queued(queue)
    with pytest.raises(StageFailed, match=r"out of memory \(see queue \w+-a3\)"):
        run.stage("model")


def test_a_cancelled_submission_of_mine_interrupts_and_of_another_is_replaced():
    run = queued(Queue(status("cancelled")))
    with pytest.raises(Interrupted, match="cancelled elsewhere"):
        run.stage("model")
    queue = Queue(status("cancelled"), status("completed"), mine=False)
    queued(queue).stage("model")
    assert len(queue.known) == 2


@pytest.mark.parametrize("mine", [True, False])
def test_a_cancelled_run_takes_only_its_own_submission_along(mine):
    queue = Queue(*[status("open")] * 1000, mine=mine)
    run = queued(queue)
    threading.Timer(0.3, run.cancelled.set).start()
    with pytest.raises(Interrupted):
        run.stage("model")
    (name,) = queue.known
    assert queue.done == [("cancel", name)] * mine + [("release", name)]


OUTSIDE = """
from flows.dispatch.inline import Inline
class Slurm(Inline):
    name = "slurm"
BACKEND = Slurm
"""


def test_a_backend_of_another_package_is_one_module_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "lab_slurm.py").write_text(OUTSIDE)
    info = tmp_path / "lab-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[foundry.dispatch]\nslurm = lab_slurm\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._entry_points.cache_clear()
    try:
        assert "slurm" in BACKENDS.names()
        assert make_backend("slurm").name == "slurm"
    finally:
        registry._entry_points.cache_clear()
        BACKENDS._loaded.pop("slurm", None)


def test_every_member_declares_what_callers_use():
    assert BACKENDS.names() == ["gpu-pool", "inline", "ray-job"]
    for name in BACKENDS.names():
        member = BACKENDS.get(name)
        assert issubclass(member, Backend)
        assert member.name == name
        assert not member.__abstractmethods__


def test_what_cannot_be_reached_is_named(monkeypatch):
    with pytest.raises(FoundryError, match="unknown dispatch backend 'gpu-pol'"):
        make_backend("gpu-pol")
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(FoundryError, match=f"no Ray cluster takes jobs at {address}"):
        RayJob(address=address)
