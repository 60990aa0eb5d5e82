"""Stages with GPUs as jobs of a real Ray cluster of one node, with token authentication on."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from flows import processes
from flows.dispatch.ray_job import RayJob, stop_job
from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from flows.service.reaper import reap
from foundry_core.config.overrides import parse_override
from foundry_core.errors import FoundryError
from foundry_core.execution.job import Interrupted
from foundry_core.lineage import queries
from tests.orchestration import free_port, until
from tests.support import WORDS

pytestmark = [pytest.mark.slow("a Ray cluster and jobs on it"), pytest.mark.timeout(900)]
TOKEN = "0123456789abcdef0123456789abcdef0123456789ab"
REQUEST = (
    "('model.rate', {rate}), ('model.resources.gpus', 1), "
    "('model.seconds', 20.0), ('model.steps', 100)"
)
COORDINATOR = """
from flows.dispatch.ray_job import RayJob
from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
backend = RayJob()
backend.poll_seconds = 0.5
run = PipelineRun(
    prepare(Request(pipeline={words!r}, overrides=({changes}))), backend=backend
)
run.start()
run.walk()
"""


@pytest.fixture(scope="module")
def cluster():
    """A head that is ended by its processes' ids: `ray stop` ends every Ray of the machine."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets: paths of at most 107 bytes
    port = free_port()
    flags = {
        "port": free_port(),
        "dashboard-port": port,
        "ray-client-server-port": free_port(),
        "dashboard-agent-listen-port": free_port(),
        "dashboard-agent-grpc-port": free_port(),
        "metrics-export-port": free_port(),
        "num-cpus": 2,
        "num-gpus": 1,  # said to Ray, which believes it
        "object-store-memory": 100 * 1024**2,
        "temp-dir": folder,
    }
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    environment["FOUNDRY_RAY_TEST"] = folder
    head = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *(f"--{name}={value}" for name, value in flags.items()),
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        head.send_signal(signal.SIGTERM)
        try:
            head.wait(30)
        except subprocess.TimeoutExpired:
            head.kill()
        for pid in marked(folder):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def marked(folder):
    mark = f"FOUNDRY_RAY_TEST={folder}\0".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes():
                yield int(path.parent.name)
        except OSError:
            continue


@pytest.fixture
def address(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", cluster)

    def answers():
        try:
            return RayJob()
        except FoundryError:
            return None

    until(answers, 180, "the head answers")
    return cluster


def started(rate, seconds=0.0):
    changes = (f"rate={rate}", f"seconds={seconds}", "steps=100", "resources.gpus=1")
    pairs = (f"model.{change}" for change in changes)
    request = Request(pipeline=str(WORDS), overrides=tuple(map(parse_override, pairs)))
    backend = RayJob()
    backend.poll_seconds = 0.5
    run = PipelineRun(prepare(request), backend=backend)
    run.start()
    run.stage("first")
    return run


def jobs(key):
    found = RayJob()._client.list_jobs()
    return [one for one in found if (one.submission_id or "").startswith(key)]


def coordinator(rate):
    changes = REQUEST.format(rate=rate)
    code = COORDINATOR.format(words=str(WORDS), changes=changes)
    return subprocess.Popen([sys.executable, "-c", code])


def test_a_job_trains_and_the_lineage_has_its_id(address):
    run = started(0.21)
    outcome = run.stage("model")
    assert outcome.action == "run"
    run.finish("succeeded")
    key = run.prepared.specs["model"].key
    with queries.connect() as connection:
        rows = queries.sql(connection, "select job_ref from attempt where kind = 'train'")
    assert rows == [{"job_ref": f"ray:{key}-a1"}]
    assert [job.status for job in jobs(key)] == ["SUCCEEDED"]
    assert processes.entries("ray-job") == []


def test_a_coordinator_that_is_started_again_finds_its_job(address):
    first = coordinator(0.22)
    until(lambda: processes.entries("ray-job"), 120, "the job is submitted")
    first.kill()
    first.wait()
    run = started(0.22, seconds=20.0)
    assert processes.entries("ray-job")[0].dead
    run.stage("model")
    key = run.prepared.specs["model"].key
    assert [job.submission_id for job in jobs(key)] == [f"{key}-a1"]


def test_cancelling_stops_the_job_and_frees_the_lease(address):
    run = started(0.23, seconds=600.0)
    key = run.prepared.specs["model"].key
    held = lambda: dict(run.prepared.store.holders())  # noqa: E731

    def cancel():
        until(held, 120, "it trains")
        run.cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Interrupted):
        run.stage("model")
    thread.join()
    assert [job.status for job in jobs(key)] == ["STOPPED"]
    until(lambda: not held() or reap(server=False), 20, "the lease is free")
    assert not held()
    assert not stop_job(address, f"{key}-a1")


def test_a_job_whose_process_is_killed_is_submitted_again_and_resumes(address):
    run = started(0.25, seconds=20.0)
    key = run.prepared.specs["model"].key
    state = run.prepared.store.root / "work" / key / "scratch" / "state.json"

    def kill():
        until(state.exists, 120, "it trains")
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            if b"foundry_core.execution.ray_entry" in path.read_bytes() and key.encode() in environ(
                path.parent
            ):
                os.kill(int(path.parent.name), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    outcome = run.stage("model")
    thread.join()
    assert sorted(job.submission_id for job in jobs(key)) == [f"{key}-a1", f"{key}-a2"]
    folder = run.prepared.store.files_path(outcome.artifact)
    assert int((folder / "records" / "resumed.txt").read_text()) >= 1


def environ(process):
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def test_the_reaper_stops_a_job_that_nobody_waits_for(address):
    left = coordinator(0.24)
    until(lambda: processes.entries("ray-job"), 120, "the job is submitted")
    left.kill()
    left.wait()
    (entry,) = processes.entries("ray-job")
    assert reap(server=False, ray_seconds=3600).get("ray jobs stopped") is None
    assert reap(server=False)["ray jobs stopped"] == [entry.id]
    time.sleep(0.1)
    assert RayJob()._client.get_job_status(entry.id) == "STOPPED"


def test_a_wrong_token_is_told_apart_from_nothing(address, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 44)
    with pytest.raises(FoundryError) as caught:
        RayJob()
    assert "RAY_AUTH_TOKEN" in caught.value.hint
