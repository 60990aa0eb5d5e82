"""The whole round on one machine: server, pools, deployments, both workers, a pipeline and an
ablation whose training is executed by the worker of the GPU pool."""

import json
import signal
import subprocess
import urllib.error
import urllib.request

import pytest

from tests.orchestration import CLI, Serving, until

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    with Serving(tmp_path_factory.mktemp("round") / "home") as started:
        yield started


def test_a_full_run_trains_in_the_gpu_pool(serving):
    done = serving.prefect(
        *("deployment", "run", "foundry/full", "-p", "pipeline=exams", "--watch"), timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (training,) = serving.trainings("COMPLETED")
    assert training["work_pool_name"] == "gpu-pool"
    assert training["parameters"]["job"]["spec"]["kind"] == "train"
    rows = serving.lineage("select stage, job_ref from attempt")
    refs = {row["stage"]: row["job_ref"] for row in rows}
    assert refs.keys() == {"text", "model", "exam"}
    assert refs["model"] == f"prefect:flow-run/{training['id']}"
    assert refs["text"].startswith("prefect:task-run/") and refs["text"] != refs["exam"]
    (run,) = serving.lineage("select run_id, status, job_ref from pipeline_run")
    assert run["status"] == "succeeded"
    coordinator = serving.run(run["job_ref"].removeprefix("prefect:flow-run/"))
    assert coordinator["work_pool_name"] == "foundry"


def test_an_ablation_reuses_the_base_and_gives_a_verdict(serving):
    flow_run = serving.submit(
        "foundry/ablation", pipeline="exams", vary=[{"path": "model.rate", "values": "0.9"}]
    )
    assert serving.ended(flow_run, 300) == "COMPLETED"
    trained = [run["name"].split()[0] for run in serving.trainings("COMPLETED")]
    assert len(trained) == 2, trained
    rows = serving.lineage("select variant, decision from ablation_effects")
    decisions = {row["variant"]: row["decision"] for row in rows}
    assert decisions == {"base": "the base", "rate=0.9": "worse than the base (these policies)"}


def test_a_study_by_its_name_and_its_report_by_http(serving):
    run = ("deployment", "run", "foundry/ablation", "--watch", "-p")
    done = serving.prefect(*run, "study=rates", timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    tells = "select ablation_id, status from ablation order by started_at desc limit 1"
    (ablation,) = serving.lineage(tells)
    assert ablation["status"] == "succeeded"
    wanted = {"artifacts": {"key": {"any_": ["report", "plan", "verdict"]}}}
    kept = sorted(serving.api("/artifacts/filter", wanted), key=lambda one: one["created"])
    assert kept[0]["key"] == "plan"
    page = f"/foundry-report/{ablation['ablation_id']}"
    assert any(f"]({page})" in one["data"] for one in kept if one["key"] == "report")
    base = serving.url.removesuffix("/api")
    with urllib.request.urlopen(base + page, timeout=60) as answer:
        assert b"rate=0.3" not in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{base}{page}/report.html", timeout=60)
    asked = urllib.request.Request(f"{base}{page}/report.html", headers=serving.headers())
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert b"rate=0.3" in answer.read()
        assert answer.headers["Content-Security-Policy"].startswith("sandbox;")


@pytest.mark.slow("Prefect's server, pools and workers")
@pytest.mark.parametrize("deployment", ["foundry/ablation", "foundry/search"])
def test_who_watches_a_run_that_fails_reads_why(serving, deployment):
    run = ("deployment", "run", deployment, "--watch", "-p")
    done = serving.prefect(*run, "study=rtes", timeout=300)
    assert done.returncode == 1
    told = " ".join(done.stdout.split())
    assert "unknown pipeline or study 'rtes' (did you mean 'rates'?)" in told


@pytest.mark.slow("Prefect's server, pools and workers")
def test_a_search_shows_its_plan_its_decisions_and_its_verdict(serving):
    """Two of four variants fail in the first rung: they drop out, and the search goes on."""
    rungs = [{"path": "model.steps", "values": "4, 8"}]
    done = _search(serving, 4, "false, true", rungs=rungs, reduction=2)
    assert done.returncode == 0, done.stdout + done.stderr
    told = " ".join(done.stdout.split())
    assert "rung 1 of 2 at 4: 4 variants; base" in told and ",fail=true: no verdict:" in told
    (run,) = (one for one in serving.flow_runs("COMPLETED") if "search" in one["tags"])
    title = "search of 4 variants over model.rate, model.fail; rungs model.steps=4,8; random"
    assert run["name"] == title
    shown = _shown(serving, run)
    kept = {one["key"]: one["data"] for one in shown}
    assert shown[0]["key"] == "plan" and "the whole at most" in kept["plan"]
    assert "| 2 of 2 | 8 | 2 |" in kept["rungs"]
    assert "That the best of the 4 is among them is not promised" in kept["verdict"]
    rows = serving.lineage(
        "select ablation_id, search, status from ablation where search is not null "
        "order by started_at"
    )
    assert [row["search"]["rung"] for row in rows] == [0, 1, None]
    assert [row["status"] for row in rows] == ["partial", "succeeded", "succeeded"]
    assert f"search:{rows[0]['search']['id']}" in run["tags"]
    assert f"(/foundry-report/{rows[0]['ablation_id']})" in kept["rungs"]
    assert f"(/foundry-report/{rows[-1]['ablation_id']})" in kept["report"]
    stages = serving.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    names = {one["name"] for one in stages}
    assert {"rung 1 of 2: base:model", "rung 2 of 2: base:model", "finalists: verdict"} <= names


@pytest.mark.slow("Prefect's server, pools and workers")
def test_a_search_that_nobody_survives_says_so(serving):
    done = _search(serving, 2, "true")
    assert done.returncode == 1
    assert "no variant is left to be judged" in " ".join(done.stdout.split())


def _search(serving, variants, fail, **more):
    """Watched, over two rates and these values of `fail`."""
    rows = (("model.rate", "0.2, 0.3"), ("model.fail", fail))
    space = [{"path": path, "values": values} for path, values in rows]
    asked = {"pipeline": "budgets", "variants": variants, "space": space, **more}
    line = ["deployment", "run", "foundry/search", "--watch"]
    for name, value in asked.items():
        line += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return serving.prefect(*line, timeout=500)


def _shown(serving, run):
    """What a flow run shows on its page, the first first."""
    found = serving.api("/artifacts/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    return sorted(found, key=lambda one: one["created"])


def test_cancelling_an_ablation_in_the_ui_ends_its_trainings_and_is_recorded(serving):
    flow_run = serving.submit(
        "foundry/ablation",
        pipeline="exams",
        overrides=[{"path": "model.seconds", "value": "600"}],
        vary=[{"path": "model.rate", "values": "0.6"}],
    )
    until(lambda: serving.children() and serving.trainings("RUNNING"), 200, "it trains")
    serving.cancel(flow_run)
    assert serving.ended(flow_run, 200) == "CANCELLED"
    until(lambda: not serving.flow_runs() and not serving.leases(), 200, "all is closed")
    assert serving.children() == []
    tells = "select ablation_id, status from ablation order by started_at desc limit 1"
    (ablation,) = serving.lineage(tells)
    assert ablation["status"] == "cancelled"
    asked = f"where ablation_id = '{ablation['ablation_id']}'"
    rows = serving.lineage(f"select variant, decision, success from ablation_effects {asked}")
    assert {row["variant"]: row["success"] for row in rows} == {"base": None, "rate=0.6": None}
    assert all(row["decision"].startswith("no verdict") for row in rows), rows


@pytest.mark.slow("Prefect's server, pools and workers")
def test_two_ablations_at_once_on_a_pool_of_one_share_what_is_equal(serving):
    """The base is new to both, and each waits for the pool's only slot."""
    both = [
        serving.submit(
            "foundry/ablation",
            pipeline="exams",
            overrides=[{"path": "model.rate", "value": "0.05"}],
            vary=[{"path": "model.steps", "values": steps}],
        )
        for steps in ("7", "9")
    ]
    assert [serving.ended(one, 400) for one in both] == ["COMPLETED", "COMPLETED"]
    rows = serving.lineage(
        "select key, count(*) as n from attempt join artifact using (key) "
        "where attempt.kind = 'train' and recipe::varchar like '%0.05%' group by key"
    )
    assert [row["n"] for row in rows] == [1, 1, 1], rows


def test_cancelling_a_local_run_cancels_its_training(serving):
    run = subprocess.Popen(
        [*CLI, "run", "exams", "--dispatch", "gpu-pool", "-o", "model.seconds=600"],
        env=serving.environment,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    until(lambda: serving.children() and serving.trainings("RUNNING"), 120, "it trains")
    ((name, _),) = serving.pids("run").items()
    cancelled = serving.foundry("cancel", name)
    assert cancelled.returncode == 0, cancelled.stderr
    assert run.wait(120) == 130
    until(lambda: not serving.flow_runs() and not serving.leases(), 120, "all is closed")
    assert serving.children() == []
    rows = serving.lineage(f"select status from pipeline_run where run_id = '{name}'")
    assert rows == [{"status": "cancelled"}]


def test_unknown_parameters_are_refused(serving):
    wrong = {"path": "model.rate", "valeu": "0.9"}
    with pytest.raises(Exception, match="HTTP Error 4"):
        serving.submit("foundry/full", pipeline="exams", overrides=[wrong])


def test_check_and_status_in_plain_words(serving):
    port = str(serving.port)
    assert serving.foundry("serve", "--check", "--port", port).returncode == 0
    again = serving.foundry("serve", "--port", port)
    assert again.returncode == 2
    assert f"runs on 127.0.0.1:{port} already" in again.stderr
    status = json.loads(serving.foundry("status", "--json").stdout)
    assert status["server"] == serving.url
    assert {pool["pool"]: len(pool["online"]) for pool in status["pools"]} == {
        "foundry": 1,
        "gpu-pool": 1,
    }
    assert status["runs"] == status["queue"] == status["leases"] == []


@pytest.mark.slow("Prefect's server, pools and workers")
def test_interrupting_serve_leaves_nothing(tmp_path):
    with Serving(tmp_path / "home") as serving:
        flow_run = serving.submit(
            "foundry/full", pipeline="exams", overrides=[{"path": "model.seconds", "value": "600"}]
        )
        until(lambda: serving.children() and serving.trainings("RUNNING"), 120, "it trains")
        assert serving.state(flow_run) == "RUNNING"
        serving.process.send_signal(signal.SIGINT)
        serving.process.wait(60)
        until(lambda: not serving.processes(), 10, "no process is left")
        assert serving.process.returncode == 130
