"""The files of deploy/ name what exists, pin what they take, hold no secret, open nothing."""

import importlib.util
import json
import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PINS = dict(
    line.split("==") for line in (DEPLOY.parent / "constraints.txt").read_text().splitlines()
)
# What an environment may say openly; everything else with such a name comes from outside.
SECRET = re.compile(r"(PASSWORD|SECRET|TOKEN|AUTH)(_|$)", re.IGNORECASE)
OPEN = {"RAY_AUTH_MODE"}


def _documents(name):
    return [one for one in yaml.safe_load_all((DEPLOY / name).read_text()) if one]


@pytest.fixture
def compose():
    return _documents("compose.yaml")[0]


def _pods():
    yield "coordinator", _documents("kubernetes/foundry.yaml")[2]["spec"]["template"]["spec"]
    ray = _documents("kubernetes/ray.yaml")[0]["spec"]
    yield "ray head", ray["headGroupSpec"]["template"]["spec"]
    yield "ray worker", ray["workerGroupSpecs"][0]["template"]["spec"]
    pool = json.loads((DEPLOY / "kubernetes/gpu-pool.json").read_text())
    yield "gpu pool", pool["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]


def test_every_image_is_pinned(compose):
    for name, service in compose["services"].items():
        image = service["image"]
        assert image.startswith("${FOUNDRY_IMAGE:-") or re.search(r":v?\d+\.\d+", image), name
    base = re.search(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert base and not base[1].endswith("latest")


def test_compose_listens_on_loopback_only(compose):
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


def test_secrets_come_from_the_environment(compose):
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) and variable not in OPEN:
                assert value.startswith("${"), f"{name}: {variable}"
    config = _documents("kubernetes/foundry.yaml")[0]["data"]
    assert [v for v in config if SECRET.search(v) and v not in OPEN] == []
    example = (DEPLOY / "compose.env.example").read_text()
    asked = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    assert asked and all(re.search(rf"^{name}=", example, re.MULTILINE) for name in asked)


def test_a_compose_service_waits_for_what_it_needs_to_be_healthy(compose):
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[other], f"{name} waits for {other}"


@pytest.mark.parametrize(("name", "pod"), list(_pods()))
def test_a_pod_has_the_rights_it_needs_and_no_more(name, pod):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        rights = container["securityContext"]
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert {m["name"] for m in container["volumeMounts"]} <= {v["name"] for v in pod["volumes"]}


def test_user_and_versions_agree():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    user = re.search(r"^USER (\d+)", dockerfile, re.MULTILINE)[1]
    assert all(str(pod["securityContext"]["runAsUser"]) == user for _, pod in _pods())
    assert _documents("kubernetes/ray.yaml")[0]["spec"]["rayVersion"] == PINS["ray"]
    torch = re.search(r"torch==[\d.]+", (DEPLOY.parent / "Makefile").read_text())[0]
    assert torch in dockerfile


def test_what_workers_start_exists(compose):
    pods = dict(_pods())
    commands = [
        compose["services"]["coordinator"]["command"],
        compose["services"]["gpu"]["command"],
        pods["coordinator"]["containers"][0]["args"],
        shlex.split(
            json.loads((DEPLOY / "kubernetes/gpu-pool.json").read_text())["variables"][
                "properties"
            ]["command"]["default"]
        ),
    ]
    pools = {
        deployment["work_pool"]["name"]
        for deployment in _documents("prefect.yaml")[0]["deployments"]
    }
    for python, safe, flag, module, what, *rest in commands:
        assert (python, safe, flag) == ("python", "-P", "-m")
        assert importlib.util.find_spec(module) is not None
        assert what == "engine" or (what == "worker" and rest[0] in pools)


def test_the_image_copies_what_git_holds_and_the_context_lets_through():
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    allowed = {
        line[1:]
        for line in (DEPLOY.parent / ".dockerignore").read_text().splitlines()
        if line[:1] == "!"
    }
    for name in names:
        assert (DEPLOY.parent / name).exists(), name
        assert any(name == one or name.startswith(f"{one}/") for one in allowed), name


STUBS = {
    "scontrol": "echo node-a; echo node-b",
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "hostname": "echo 10.0.0.1",
    "ray": 'echo "ray $*" >> "$LOG"; case "$1 $2" in "start "*) exec sleep 3;; esac',
    "python": "echo 2",
    "foundry": 'echo "foundry $* $RAY_API_SERVER_ADDRESS ${#RAY_AUTH_TOKEN}" >> "$LOG"; exit $CODE',
}


def _submitted(tmp_path, code=0, **changed):
    """The script, with stand-ins for Slurm, Ray and Foundry, which note how they are called."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in (STUBS | changed).items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(stat.S_IRWXU)
    (programs / "activate").write_text(f'export PATH="{programs}:$PATH"\n')
    environment = {
        **{k: v for k, v in os.environ.items() if k in ("PATH", "HOME")},
        "FOUNDRY_VENV": str(tmp_path / "venv"),
        "FOUNDRY_STORE": str(tmp_path / "store"),
        "SLURM_JOB_NODELIST": "node-[a-b]",
        "SLURM_JOB_ID": "7",
        "LOG": str(tmp_path / "log"),
        "CODE": str(code),
        "FOUNDRY_RAY_TRIES": "1",
    }
    command = ["bash", str(DEPLOY / "slurm.sbatch"), "demo", "-o", "seed=1"]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, start_new_session=True
    )


def test_slurm_ends_where_ray_does_not_start(tmp_path):
    done = _submitted(tmp_path, python="echo 1")
    assert done.returncode == 3
    assert "Ray did not start on all nodes of node-[a-b]" in done.stderr


@pytest.mark.parametrize("code", [0, 1])
def test_slurm_starts_ray_runs_and_says_how_it_ended(tmp_path, code):
    done = _submitted(tmp_path, code)
    assert done.returncode == code, done.stderr
    said = (tmp_path / "log").read_text().splitlines()
    assert "ray start --block --address=10.0.0.1:6379" in said
    assert any(line.startswith("ray start --head") and "127.0.0.1" in line for line in said)
    run = next(line for line in said if line.startswith("foundry"))
    assert run.startswith("foundry run demo -o seed=1 --dispatch ray-job http://127.0.0.1:8265 ")
    assert int(run.split()[-1]) >= 24
    assert said[-1].startswith("ray stop")
