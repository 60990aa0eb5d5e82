"""When a run looks at its numbers and saves; what SIGTERM leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from model_zoo import build, language_config, robot_batch, vla_config
from test_compile import CAPTIONS, ROBOT, TEXT, mixed
from test_objectives import caption_batch, text_batch
from torch.utils._python_dispatch import TorchDispatchMode
from training_toy import toy_trainer, weights

from foundry_core.models.placeholders import as_on_a_device
from foundry_core.training import cadence
from foundry_core.training.cadence import Cadence
from foundry_core.training.config import OptimizerConfig, TrainResources
from foundry_core.training.distributed import World
from foundry_core.training.mixed_batch import StepKey
from foundry_core.training.optim import build_optimizer, gradient_norm, update
from foundry_core.training.parts import part_norms

RESOURCES = TrainResources(log_every=10, checkpoint_every_seconds=5.0)
FAR = World(device=torch.device("meta"))  # any device but the CPU


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(cadence.time, "monotonic", lambda: now[0])
    return now


def test_a_cpu_looks_at_every_step():
    clock = Cadence(RESOURCES, World(), 100)
    assert all(clock.look_due(done) for done in range(1, 101))


def test_a_device_is_waited_for_about_once_a_second(clock):
    steps = Cadence(RESOURCES, FAR, 10_000)
    looks = []
    for done in range(1, 201):
        clock[0] += 0.125
        if steps.look_due(done):
            looks.append(done)
            steps.looked(done, stop=False)
    rows = set(range(10, 201, 10))  # of the log
    assert looks[0] == 1  # nothing is known of the steps before
    assert rows <= set(looks)
    assert set(looks) - rows == {1, 9, *range(18, 200, 10)}


def test_saving_takes_no_more_than_its_share(clock):
    steps = Cadence(RESOURCES, World(), 10_000)
    saved = []
    for done in range(1, 2001):
        clock[0] += 1.0
        if steps.looked(done, stop=False)[0]:
            saved.append(done)
            clock[0] += 4.0
            steps.saved(4.0)
    assert saved[0] == 5
    assert all(later - earlier >= 200 for earlier, later in pairwise(saved))


def test_a_request_saves_and_ends():
    assert Cadence(RESOURCES, World(), 10).looked(3, stop=True) == (True, True)
    assert Cadence(RESOURCES, FAR, 1000).look_due(501, stop=True)


class Reads(TorchDispatchMode):
    """Counts what makes a host wait for a device."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found += func.name() in ("aten::_local_scalar_dense", "aten::nonzero")
        return func(*args, **(kwargs or {}))


def test_a_step_makes_no_host_wait(tmp_path):
    trainer = toy_trainer(tmp_path, training={"clip": 1.0})
    trainer.build()
    trainer._open()
    trainer._resume()
    batch = next(iter(trainer.batches(0)))
    for objective in trainer.objectives.values():
        objective.count = lambda part: float(part["x"].shape[0])  # of a batch still on the host
    with Reads() as reads:
        values = trainer._backward(batch, StepKey(seed=0, step=0))
        values["grad_norm"] = gradient_norm(trainer.optimizer)
        update(trainer.optimizer, values["loss"], values["grad_norm"], 1.0)
        trainer.ema.update(1)
        trainer.pending.add(0, values, batch)
    assert reads.found == 0
    (numbers,) = trainer.pending.read()
    assert numbers.finite
    assert numbers.values["loss"] > 0


@pytest.mark.parametrize("stage", ["llm", "vlm", "vla"])
def test_no_loss_makes_a_host_wait(stage):
    """Forward, backward, clipping and update of the real models on batches that `prepare` made.
    Checks of placeholders, which CPU tensors get once more in the model, are those of a host."""
    model = build(language_config() if stage == "llm" else vla_config())
    model = model.backbone if stage == "vlm" else model
    parts = {
        "llm": ({"text": TEXT}, {"text": text_batch()}),
        "vlm": ({"captions": CAPTIONS}, {"captions": caption_batch()}),
        "vla": (
            {"robot": ROBOT, "captions": CAPTIONS},
            {"robot": robot_batch([4, 3]), "captions": caption_batch()},
        ),
    }
    loss, inputs = mixed(model, *parts[stage])
    optimizer = build_optimizer(model, OptimizerConfig())
    with as_on_a_device(), Reads() as reads:
        total, _ = loss(*inputs)
        total.backward()
        norms = part_norms(model)
        update(optimizer, total, gradient_norm(optimizer), 1.0)
    assert reads.found == 0
    assert norms["grad_norm_language"] > 0


_RUN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from training_toy import toy_batches, toy_trainer

def slow(first):
    for batch in toy_batches(first):
        time.sleep(0.02)
        yield batch

toy_trainer(Path(sys.argv[1]), steps=int(sys.argv[3]), batches=slow).train()
"""


def _start(folder: Path, steps: int) -> subprocess.Popen:
    command = [sys.executable, "-c", _RUN, str(folder), str(Path(__file__).parent), str(steps)]
    return subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


def test_sigterm_saves_the_step_it_met(tmp_path):
    straight = toy_trainer(tmp_path / "straight", steps=120)
    straight.train()
    run = _start(tmp_path / "stopped", 120)
    log = tmp_path / "stopped" / "scratch" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGTERM)
    assert run.wait(60) == 128 + signal.SIGTERM
    (saved,) = (tmp_path / "stopped" / "scratch" / "checkpoints").glob("step_*")
    step = json.loads((saved / "state.json").read_text())["step"]
    assert 4 <= step < 120
    resumed = toy_trainer(tmp_path / "stopped", steps=120)
    assert resumed.train().resumed_from == step
    assert all(torch.equal(weights(resumed)[n], w) for n, w in weights(straight).items())
    for name in ("straight", "stopped"):
        rows = (tmp_path / name / "records" / "metrics.jsonl").read_bytes()
        assert rows == (tmp_path / "straight" / "records" / "metrics.jsonl").read_bytes()


def test_who_launched_the_run_ends_it_with_a_save(tmp_path):
    """As SIGTERM does: Ray's workers are told through `World.stop`."""
    asked = iter([False] * 5 + [True] * 10)
    trainer = toy_trainer(tmp_path, steps=20, world=World(stop=lambda: next(asked)))
    with pytest.raises(SystemExit) as ended:
        trainer.train()
    assert ended.value.code == 128 + signal.SIGTERM
    (saved,) = (tmp_path / "scratch" / "checkpoints").glob("step_*")
    assert saved.name == "step_000000006"
