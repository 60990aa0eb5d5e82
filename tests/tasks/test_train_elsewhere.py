"""A training on Ray nodes that share a bucket and no disk.

Each node is a `ray start` of its own in a mount namespace of its own, where `disk` is a file system
that no other process sees; all nodes know it by the same path. Where namespaces may not be made,
the nodes have different folders for it.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from foundry_core.home import home_dir
from foundry_core.lineage import queries
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index
from foundry_core.objects import Objects, connect
from foundry_core.store.open import open_store
from tests.orchestration import CLI, free_port, until
from tests.s3 import s3_server, use_s3

pytestmark = [pytest.mark.slow("Ray nodes of their own"), pytest.mark.timeout(2400)]
TOKEN = "fedcba9876543210fedcba9876543210fedcba9876543210"
MARK = "FOUNDRY_TEST_NODE"
STEPS = 150
PIPELINE = {
    "name": "elsewhere",
    "stages": {
        "tokenizer": {
            "kind": "train_tokenizer",
            "recipe": {
                "vocab_size": 300,
                "sources": [{"format": "packages", "packages": ["packaging"]}],
            },
        },
        "text": {
            "kind": "convert_text",
            "inputs": {"tokenizer": "tokenizer"},
            "recipe": {
                "context": 32,
                "source": {"format": "packages", "packages": ["packaging"]},
            },
        },
        "llm": {
            "kind": "train_llm",
            "inputs": {"text": "text", "tokenizer": "tokenizer"},
            "resources": {"log_every": 5, "checkpoint_every_steps": 10, "num_workers": 2},
            "recipe": {
                "model": {"dim": 32, "n_layers": 2, "n_heads": 2, "ffn_dim": 64, "context": 32},
                "data": {"text": {"batch_size": 8}},
                "training": {
                    "steps": STEPS,
                    "schedule": {"kind": "wsd", "warmup": 5},
                    "ema": {"kind": "fixed", "decay": 0.9},
                },
            },
        },
    },
}


@functools.cache
def namespaces() -> bool:
    """Whether this process may make file systems that others do not see."""
    try:
        return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


class Cluster:
    """A head without CPUs for ranks, which is the launching process's node, and nodes of one CPU
    each."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._how: dict[str, tuple] = {}
        quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "10"}
        more = ("--temp-dir", str(folder / "ray"), "--disable-usage-stats")
        flags = (*more, "--ray-client-server-port", str(free_port()))
        self._start("head", ("--head", "--port", str(port), *flags), 0, self.home("head"), quick)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def home(self, node: str) -> Path:
        return self._disk(node) / "home"

    def _disk(self, node: str) -> Path:
        return self._folder / ("disk" if namespaces() else f"disk-{node}")

    def add(self, node: str) -> None:
        disk, prefix = self._disk(node), ()
        disk.mkdir(exist_ok=True)
        if namespaces():
            own = f'mount -t tmpfs none {disk} && exec "$@"'
            prefix = ("unshare", "-m", "sh", "-c", own, "sh")
        self._start(node, ("--address", self.address), 1, self.home(node), {}, prefix)

    def _start(self, node, flags, cpus, home, more, prefix=()) -> None:
        self._how[node] = (flags, cpus, home, more, prefix)
        command = (sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *flags)
        size = ("--num-cpus", str(cpus), "--object-store-memory", str(100 * 2**20))
        self._nodes[node] = subprocess.Popen(
            [*prefix, *command, *size],
            env={**os.environ, **more, "FOUNDRY_HOME": str(home), MARK: f"{self._folder}:{node}"},
            stdout=subprocess.DEVNULL,
            stderr=(self._folder / f"{node}.log").open("wb"),
            start_new_session=True,
        )

    def ready(self) -> None:
        """Returns when as many CPUs have joined as there are nodes but the head. Ray gives a node
        half a minute to start, which a busy machine exceeds: then it is started again."""
        code = (
            "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)\n"
            "sys.exit(ray.cluster_resources().get('CPU', 0) < float(sys.argv[2]))"
        )
        question = [sys.executable, "-c", code, self.address, str(len(self._nodes) - 1)]

        def joined() -> bool:
            for node, process in [*self._nodes.items()]:
                if process.poll() is not None:
                    self.kill(node)
                    self._start(node, *self._how[node])
            return subprocess.run(question, capture_output=True).returncode == 0

        until(joined, 600, "the nodes have joined")

    def processes(self, node: str) -> list[int]:
        mark = f"{MARK}={self._folder}:{node}\0".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def kill(self, node: str) -> None:
        """As a machine that loses its power."""
        for pid in self.processes(node):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._nodes.pop(node).wait()

    def seen(self, node: str, pattern: str) -> list[Path]:
        """Files of a node's home, as its processes see them."""
        for pid in self.processes(node):
            home = Path(f"/proc/{pid}/root{self.home(node)}")
            with contextlib.suppress(OSError):
                if found := list(home.glob(pattern)):
                    return found
        return []

    def close(self) -> None:
        for node in [*self._nodes]:
            self.kill(node)


@pytest.fixture(scope="module")
def bucket():
    with pytest.MonkeyPatch.context() as patch, s3_server() as endpoint:
        patch.setenv("FOUNDRY_S3_TIMEOUT", "30")
        yield use_s3(patch, endpoint)


@pytest.fixture(scope="module")
def cluster(bucket):
    folder = Path(tempfile.mkdtemp(prefix="nodes", dir="/tmp"))  # sockets: 107 bytes at most
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        started = Cluster(folder, free_port())
        try:
            for node in ("b", "c"):
                started.add(node)
            started.ready()
            yield started
        finally:
            started.close()
            shutil.rmtree(folder, ignore_errors=True)


class Launch:
    """`foundry run` on the head's host, with a store and a home of its own."""

    def __init__(self, cluster: Cluster, bucket: str, name: str) -> None:
        self.cluster, self.store = cluster, f"{bucket}/{name}"
        self.folder = cluster.home("head").parent / name
        self.folder.mkdir(parents=True)
        (self.folder / "p.yaml").write_text(yaml.safe_dump(PIPELINE))
        self.homes = 0
        # What the ranks read is made before: conversions are not what is tried here.
        self.start("--only", "text", ray=False).wait(600)

    def start(self, *more: str, ray: bool = True) -> subprocess.Popen[bytes]:
        """Each from a home that knows nothing but the bucket."""
        self.homes += 1
        self.home = self.folder / f"home{self.homes}"
        address = {"RAY_ADDRESS": self.cluster.address} if ray else {}
        self.output = self.folder / f"output{self.homes}"
        return subprocess.Popen(
            [*CLI, "run", str(self.folder / "p.yaml"), *more],
            env={
                **os.environ,
                **address,
                "FOUNDRY_HOME": str(self.home),
                "FOUNDRY_STORE": self.store,
            },
            stdout=self.output.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ended(self, process: subprocess.Popen[bytes]) -> None:
        assert process.wait(900) == 0, self.output.read_text()

    @property
    def objects(self) -> Objects:
        return connect(self.store)

    def checkpoints(self) -> list[str]:
        """What is committed in the store, oldest first."""
        names = [entry.name for entry in self.objects.find("work")]
        return sorted(n for n in names if "/step_" in n and n.endswith(".json"))

    def artifact(self):
        store = open_store(self.store)
        ((kind, key),) = [place for place in store.artifacts() if place[0] == "train_llm"]
        return store, store.read(kind, key)

    def files(self, tmp_path: Path) -> Path:
        store, artifact = self.artifact()
        with store.reading(artifact) as folder:
            shutil.copytree(folder, tmp_path / self.folder.name)
        return tmp_path / self.folder.name


def launched_alone(cluster: Cluster, bucket: str) -> Launch:
    launch = Launch(cluster, bucket, "straight")
    launch.ended(launch.start())
    return launch


@pytest.fixture(scope="module")
def straight(cluster, bucket):
    return launched_alone(cluster, bucket)


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """This process downloads into a cache of its own."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "looks"))


@pytest.mark.usefixtures("own_home")
def test_what_ranks_elsewhere_make_reaches_store_and_lineage(straight):
    """Files, metrics, the state for larger budgets; and nothing of the work is left."""
    _, artifact = straight.artifact()
    assert {"model.safetensors", "raw.safetensors", "records/metrics.jsonl"} <= {
        file.path for file in artifact.files
    }
    assert (artifact.metrics["steps"], artifact.metrics["resumed_from_step"]) == (STEPS, 0)
    assert not straight.objects.find("work")
    assert len(straight.objects.folders("trunk")) == 1
    Index(home_dir() / queries.INDEX_NAME, EventLog(f"{straight.store}/events")).rebuild()
    with queries.connect() as connection:
        query = f"select max(step) as last, count(*) as n from metric where key = '{artifact.key}'"
        (row,) = queries.sql(connection, query + " and name = 'loss'")
    assert (row["last"], row["n"]) == (STEPS, STEPS // 5)
    (log,) = straight.home.glob("runs/*/logs/llm.log")
    assert "pid=" in log.read_text()  # as Ray marks what workers print


def rank_0(cluster: Cluster) -> str | None:
    """The node whose disk has rank 0's metrics."""
    for node in ("b", "c", "d"):
        if cluster.seen(node, "work/*/*/ranks/*/metrics.jsonl"):
            return node
    return None


def scratch_of(home: Path) -> Iterator[Path]:
    return (path for path in home.glob("work/*/*/scratch/**/*") if path.is_file())


@pytest.mark.usefixtures("own_home")
def test_a_node_that_dies_is_replaced_and_the_weights_are_the_same(
    cluster, bucket, straight, tmp_path
):
    launch = Launch(cluster, bucket, "killed")
    process = launch.start()
    until(lambda: len(launch.checkpoints()) >= 2 or process.poll() is not None, 600, "two saved")
    node = until(lambda: rank_0(cluster), 10, "rank 0 is seen")
    here = [path.name for path in scratch_of(launch.home)]
    assert not [name for name in here if "shard" in name or "metrics" in name]
    cluster.kill(node)
    cluster.add("d")
    cluster.ready()
    launch.ended(process)
    ours, theirs = launch.files(tmp_path), straight.files(tmp_path)
    timings = json.loads((ours / "records" / "timings.json").read_text())
    assert timings["resumed_from_step"] >= 10
    for name in ("model.safetensors", "raw.safetensors", "records/metrics.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


@pytest.mark.usefixtures("own_home")
def test_one_rank_on_another_host_continues_what_two_began(cluster, bucket, straight, tmp_path):
    launch = Launch(cluster, bucket, "fewer")
    process = launch.start()
    until(lambda: len(launch.checkpoints()) >= 2 or process.poll() is not None, 600, "two saved")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    launch.ended(launch.start("-o", "llm.resources.num_workers=1", ray=False))
    ours, theirs = launch.files(tmp_path), straight.files(tmp_path)
    timings = json.loads((ours / "records" / "timings.json").read_text())
    assert timings["resumed_from_step"] >= 10
    expected = load_file(theirs / "model.safetensors")
    for name, weight in load_file(ours / "model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], atol=1e-4, rtol=1e-3)
