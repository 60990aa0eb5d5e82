"""What a plan asks of the machine, a pool and a cluster, before anything has started."""

import contextlib
import http.server
import io
import json
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from flows.cli import main
from flows.console import Console
from flows.dispatch import gpu_pool, inline, ray_job, slots
from flows.dispatch.base import BACKENDS
from flows.dispatch.gpu_pool import GpuPool
from flows.dispatch.inline import Inline
from flows.dispatch.ray_job import RayJob
from flows.prefect import pools
from flows.runs.engine import PipelineRun
from flows.runs.events import Note, StageProgress, StageStarted
from flows.runs.fitting import fitted
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Resources
from foundry_core.training.config import TrainResources
from tests.orchestration import free_port
from tests.runs import prepared, run
from tests.support import WORDS

pytestmark = pytest.mark.usefixtures("known_code")


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(inline, "visible_gpus", lambda: 2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def notes_of(planned, stage="model"):
    return " ".join(planned.plan.stages[stage].notes)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("command", [["plan"], ["run", "--dry-run"], ["ablate", "--dry-run"]])
def test_more_gpus_than_here_end_a_plan_with_2(small_home, command, capsys):
    pipeline, more = str(WORDS), []
    if command[0] == "ablate":
        pipeline, more = str(WORDS.parent / "exams.yaml"), ["--vary", "model.rate=0.1,0.2"]
    assert main([*command, pipeline, *more, "-o", "model.resources.gpus=3"]) == 2
    err = capsys.readouterr().err
    assert "asks for 3 GPUs, this machine has 2 (" in err
    assert "model' asks for 3 GPUs" in err
    assert "(set model.resources.gpus, or run it" in err
    assert "--dispatch gpu-pool or ray-job" in err
    assert main([*command, pipeline, *more, "-o", "model.resources.gpus=2"]) == 0
    assert not (small_home / "runs").exists(), "nothing was started"


@pytest.mark.usefixtures("small_home", "two_gpus")
def test_a_stage_that_is_reused_asks_for_nothing():
    run()
    assert main(["plan", str(WORDS), "-o", "model.resources.gpus=3"]) == 0


def test_more_cpus_than_here_are_a_note(small_home, monkeypatch, capsys):
    for module in (slots, inline):
        monkeypatch.setattr(module, "here", lambda: 2)
    asking = prepared("model.resources.cpus=9")
    planned = fitted(asking, "inline")
    assert notes_of(planned) == "asks for 9 CPUs, this machine has 2: it gets all of them, alone"
    assert fitted(prepared("model.resources.cpus=2"), "inline").plan.stages["model"].notes == ()
    seen = []
    PipelineRun(asking, observe=seen.append).check_resources()
    assert seen == [Note(f"stage model: {notes_of(planned)}")]
    workers = TrainResources(cpus=2, num_workers=3)
    assert "asks for 6 CPUs" in Inline().notes("model", workers)[0]


def test_workers_of_a_running_ray_are_not_counted_here(monkeypatch):
    monkeypatch.setattr(inline, "visible_gpus", lambda: 0)
    workers = TrainResources(gpus=2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(FoundryError, match=r"this machine has 0"):
        Inline().check("model", workers)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    Inline().check("model", workers)
    assert "Ray cluster of RAY_ADDRESS" in Inline().notes("model", workers)[0]
    with pytest.raises(FoundryError, match=r"this machine has 0"):
        Inline().check("model", TrainResources(gpus=1))


def test_a_plan_for_elsewhere_is_possible_from_here(small_home, monkeypatch, capsys):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", f"http://127.0.0.1:{free_port()}")
    planned = fitted(prepared("model.resources.gpus=8"), "ray-job")
    assert "not known here whether ray-job can run it: no Ray cluster" in notes_of(planned)
    assert main(["plan", str(WORDS), "--dispatch", "ray-jb"]) == 2
    assert "unknown dispatch backend 'ray-jb'" in capsys.readouterr().err


def test_a_plan_without_demands_asks_nobody(small_home):
    code = f"""
import sys
from flows.cli import main
code = main(["plan", {str(WORDS)!r}, "--dispatch", "ray-job"])
heavy = {{"ray", "prefect", "torch", "duckdb", "numpy"}} & sys.modules.keys()
sys.exit(code or ", ".join(heavy) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# One node of 8 CPUs and 2 GPUs, of which one works, and one of 4 CPUs and 1 GPU.
NODES = {
    "ab12": {"CPU": [1.0, 8.0], "GPU": [1.0, 2.0]},
    "cd34": {"CPU": [0.0, 4.0], "GPU": [0.0, 1.0]},
}


def status_of(nodes, active=("nodeAb12", "nodeCd34")):
    report = {"activeNodes": dict.fromkeys(active, 1)}
    usage = {"usageByNode": nodes}
    return {"data": {"clusterStatus": {"autoscalerReport": report, "loadMetricsReport": usage}}}


@contextlib.contextmanager
def dashboard(answer, token="t0"):
    """What Ray's dashboard tells who knows the token."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.headers["Authorization"] == f"Bearer {token}"
            self.send_response(200 if known and self.path == "/api/cluster_status" else 403)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t0")
    monkeypatch.setattr(ray_job, "connect", lambda address: None)
    with contextlib.ExitStack() as stack:
        yield lambda answer: RayJob(address=stack.enter_context(dashboard(answer)))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gpus": 3, "num_workers": 1}, "asks for 3 GPUs; .* its largest node has 2"),
        ({"gpus": 4}, "asks for 4 GPUs; .* all its nodes together have 3"),
        ({"gpus": 2, "cpus": 7}, "asks for 14 CPUs; .* all its nodes together have 12"),
        ({"gpus": 0.5, "cpus": 9}, "asks for 9 CPUs; .* its largest node has 8"),
    ],
)
def test_more_than_a_whole_cluster_is_refused(cluster, asked, words):
    with pytest.raises(FoundryError, match=rf"stage 'model' {words}"):
        cluster(status_of(NODES)).check("model", TrainResources(**asked))


def test_what_a_cluster_has_and_uses_is_a_line_that_waits(cluster):
    backend = cluster(status_of(NODES))
    for fits in ({"gpus": 3}, {"gpus": 2, "num_workers": 1}, {"gpus": 1}, {}):
        backend.check("model", TrainResources(**fits))
    assert backend.notes("model", TrainResources(gpus=2)) == ()
    busy = "waits: the cluster works with 1 of 3 GPUs"
    assert backend.notes("model", TrainResources(gpus=3)) == (busy,)


def test_an_autoscaler_and_a_silent_cluster_refuse_nothing(cluster):
    asked = TrainResources(gpus=64)
    cluster(status_of(NODES, ("rayHeadDefault", "gpuGroup"))).check("model", asked)
    silent = cluster({"data": {"clusterStatus": {}}})
    silent.check("model", asked)
    assert silent.notes("model", asked) == ()


def test_a_cluster_that_went_away_is_named(monkeypatch):
    monkeypatch.setattr(ray_job, "connect", lambda address: None)
    with pytest.raises(FoundryError, match=r"no Ray cluster takes jobs at http://127.0.0.1:"):
        RayJob(address=f"http://127.0.0.1:{free_port()}").check("model", TrainResources(gpus=1))


@pytest.fixture
def pool(monkeypatch):
    monkeypatch.setattr(gpu_pool, "has_deployment", lambda name: True)
    monkeypatch.setattr(gpu_pool.prefect_api, "server_url", lambda: "http://server/api")
    return lambda why: monkeypatch.setattr(gpu_pool, "why_waiting", lambda name: why) or GpuPool()


def test_a_pool_that_is_missing_is_refused_and_an_idle_one_waits(pool):
    asked = Resources(gpus=2)
    with pytest.raises(FoundryError, match=r"'model' asks for 2 GPUs, .* no work pool 'gpu-pool'"):
        pool(None).check("model", asked)
    pool(None).check("model", Resources())
    pool("gpu-pool has no worker online").check("model", asked)
    assert GpuPool().notes("model", asked) == ("waits: gpu-pool has no worker online",)
    assert GpuPool().notes("model", Resources()) == ()
    assert pool("").notes("model", asked) == ()


class Server:
    """A server with one pool."""

    def __init__(self, workers=("ONLINE",), **pool):
        self.pool = SimpleNamespace(**{"is_paused": False, "concurrency_limit": None} | pool)
        self.workers = [SimpleNamespace(name=f"w{i}", status=s) for i, s in enumerate(workers)]

    def read_work_pool(self, name):
        if name != "gpu-pool":
            raise pools.ObjectNotFound(Exception(name))
        return self.pool

    def read_workers_for_work_pool(self, name):
        return self.workers


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (Server(), ""),
        (Server(workers=("OFFLINE",)), "gpu-pool has no worker online: start `foundry serve`"),
        (Server(workers=()), "gpu-pool has no worker online"),
        (Server(is_paused=True), "gpu-pool is paused"),
        (Server(concurrency_limit=0), "gpu-pool takes no runs, its limit is 0"),
        (Server(concurrency_limit=3), ""),
    ],
)
def test_why_a_pool_takes_up_nothing(server, why, monkeypatch):
    monkeypatch.setattr(pools, "api", lambda: contextlib.nullcontext(server))
    found = pools.why_waiting("gpu-pool")
    assert found.startswith(why)
    assert bool(found) == bool(why)
    assert pools.why_waiting("other") is None


def test_a_run_that_nobody_takes_up_says_why(pool, monkeypatch):
    from prefect.client.schemas.objects import State, StateType

    backend = pool("gpu-pool has no worker online")
    late = State(type=StateType.SCHEDULED, name="Late")
    told = {"message": "late in gpu-pool: gpu-pool has no worker online"}
    assert backend._waiting(late) == told
    assert pool("")._waiting(late) == {"message": "late in gpu-pool"}


def test_what_a_stage_waits_for_is_told_once_and_at_once():
    out = io.StringIO()
    console = Console(file=out)
    console.observe(StageStarted("model"))
    for message in ("late in gpu-pool", "late in gpu-pool", "pending in gpu-pool"):
        console.observe(StageProgress("model", {"message": message}))
    console.observe(StageProgress("model", {"done": 1, "total": 2}))
    assert out.getvalue() == (
        "model: starts\nmodel: late in gpu-pool\nmodel: pending in gpu-pool\n"
    )


def test_a_device_that_the_stage_does_not_ask_for_is_refused():
    from tasks.evaluate import STAGE, EvaluateRecipe, EvaluateResources

    recipe = EvaluateRecipe(tasks=("drawer-open-v3",))
    with pytest.raises(FoundryError, match=r"device='cuda:0' is a GPU, .* asks for none") as error:
        STAGE.check_resources(recipe, EvaluateResources(device="cuda:0"))
    assert "resources.gpus=1" in error.value.hint
    STAGE.check_resources(recipe, EvaluateResources(device="cuda", gpus=0.5))
    STAGE.check_resources(recipe, EvaluateResources())


def test_every_backend_takes_part():
    for name in BACKENDS.names():
        assert callable(BACKENDS.get(name).notes)
