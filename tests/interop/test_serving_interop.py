"""Other people's clients drive our server: vla-eval 0.8.0, openpi-client 0.1.2, and a stub that is
generated from LBM Eval's interface.

Each needs a Python of its own, named by a variable:
    FOUNDRY_INTEROP_VLA_EVAL   python3 -m venv vla && vla/bin/pip install vla-eval==0.8.0
    FOUNDRY_INTEROP_OPENPI     ... pip install openpi-client==0.1.2 'numpy<2' typing_extensions
    FOUNDRY_INTEROP_LBM        ... pip install grpcio-tools numpy
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from foundry_core.serving.frontends.lbm import Lbm
from foundry_core.serving.frontends.openpi import OpenPi
from foundry_core.serving.frontends.vla_eval import VlaEval
from foundry_core.serving.policy import load_policy
from foundry_core.serving.server import PolicyServer

HERE = Path(__file__).parent
for helper in ("tasks", "data/loading", "serving"):
    sys.path.append(str(HERE.parent / helper))

from served import serving  # noqa: E402
from training_stages import Bench  # noqa: E402

STEPS = 11
pytestmark = pytest.mark.slow("other programs in environments of their own")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    torch.set_num_threads(1)
    bench = Bench(tmp_path_factory.mktemp("driven"))
    bench.llm()
    bench.vlm()
    server = PolicyServer(load_policy(bench.vla()[0]), "tiny")
    server.warm_up()
    yield server
    server.stop()


def driven(variable: str, what: str, script: str, out: Path, *arguments: object) -> dict:
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no Python with {what}: see the head of this file")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [python, HERE / script, *map(str, arguments), out]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(out.read_text())


def inferences(server, episodes: int) -> int:
    return episodes * math.ceil(STEPS / server.execute_steps)


def test_vla_eval_plays_episodes(server, tmp_path):
    before = server.stats()["inferences"]
    with serving(VlaEval(port=0), server) as port:
        found = driven(
            "FOUNDRY_INTEROP_VLA_EVAL", "vla-eval", "vla_eval_drives.py", tmp_path / "out", port
        )
    assert [one["steps"] for one in found["results"]] == [STEPS] * 3
    assert all(one["metrics"]["success"] for one in found["results"])
    assert server.stats()["inferences"] - before == inferences(server, 3)
    first, other, again = found["actions"]
    assert first == again
    assert first != other
    assert found["warnings"] == []


def test_openpi_drives(server, tmp_path):
    before = server.stats()["inferences"]
    with serving(OpenPi(port=0), server) as port:
        steps = server.execute_steps
        found = driven(
            "FOUNDRY_INTEROP_OPENPI",
            "openpi-client",
            "openpi_drives.py",
            tmp_path / "out",
            port,
            steps,
        )
    assert found["steps"] == steps
    assert server.stats()["inferences"] - before == inferences(server, 2)
    assert found["episodes"][0] == found["episodes"][1]
    assert np.shape(found["episodes"]) == (2, STEPS, 10)
    assert "not uint8" in found["refused"] and "Traceback" not in found["refused"]


def test_a_generated_stub_of_lbm_drives(server, tmp_path):
    before = server.stats()["inferences"]
    (tmp_path / "stubs").mkdir()
    with serving(Lbm(port=0), server) as port:
        found = driven(
            "FOUNDRY_INTEROP_LBM",
            "grpcio-tools",
            "lbm_drives.py",
            tmp_path / "out",
            port,
            tmp_path / "stubs",
        )
    assert server.stats()["inferences"] - before == inferences(server, 3)
    first, again, other = found["episodes"]
    assert first == again
    assert first != other
    rotations = np.array(first)[:, 3:12].reshape(-1, 3, 3)
    np.testing.assert_allclose(
        rotations @ rotations.swapaxes(1, 2), np.tile(np.eye(3), (STEPS, 1, 1)), atol=1e-12
    )
    assert found["refused"]
    assert json.loads(found["config"])["execute_steps"] == server.execute_steps
    assert "latency" in found["runtime"]
