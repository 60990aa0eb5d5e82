"""Trainings of all three models that are killed, or asked to end, continue bit for bit: with the
average, with accumulation, with saves under way in a thread."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_stages import TRAINING, Bench

pytestmark = pytest.mark.slow("trains every kind of model, killed and resumed")
STEPS = 120
EVERY = {"checkpoint_every_steps": 3, "micro_batch": 4, "log_every": 4}
LONG = {**TRAINING, "steps": STEPS}

_CHILD = """
import sys
from pathlib import Path
from test_train_killed import begin

begin(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
"""


def run(bench: Bench, kind: str, name: str):
    from training_stages import CAPTIONS, HEAD, LANGUAGE, ROBOT, TEXT, VLM

    scratch_vlm = {**VLM, "language": {"kind": "transformer", **LANGUAGE}}
    model = {
        "llm": LANGUAGE,
        "vlm": scratch_vlm,
        "packed": scratch_vlm,
        "vla": {"head": HEAD, "backbone": {"kind": "vlm", **scratch_vlm}},
    }[kind]
    data = {
        "llm": {"text": TEXT},
        "vlm": {"captions": CAPTIONS},
        "packed": {"captions": {**CAPTIONS, "packing": {"length": 96}}},
        "vla": {"robot": ROBOT, "captions": {**CAPTIONS, "loss_weight": 0.1}},
    }[kind]
    inputs = {modality: modality for modality in data} | {"tokenizer": "tokenizer"}
    if kind == "vla":
        inputs["stats"] = "stats"
    recipe = {"model": model, "data": data, "training": LONG}
    stage = "train_vlm" if kind == "packed" else f"train_{kind}"
    return bench.stage(name, stage, recipe, inputs, resources=EVERY)


def begin(root: Path, kind: str, name: str) -> None:
    """In a process of its own: the datasets lie there already."""
    bench = Bench.__new__(Bench)
    bench.root = root
    bench.datasets = dict.fromkeys(("text", "captions", "robot", "tokenizer"))
    bench.datasets = {n: root / n for n in bench.datasets} | {"stats": root / "robot"}
    run(bench, kind, name)


def stopped(bench: Bench, kind: str, name: str, number: signal.Signals) -> None:
    """Starts the stage and ends it by a signal when it has saved, a tenth of the way."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(bench.root), kind, name],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parent,
    )
    checkpoints = bench.root / f"{name}.scratch" / "checkpoints"
    deadline = time.monotonic() + 240
    while not any(checkpoints.glob("step_*")):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    child.send_signal(number)
    assert child.wait(60) == (-number if number == signal.SIGKILL else 128 + number)


@pytest.mark.parametrize("kind", ["llm", "vlm", "packed", "vla"])
def test_killed_and_ended_trainings_go_on_bit_for_bit(tmp_path, kind):
    bench = Bench(tmp_path)
    straight, _ = run(bench, kind, "straight")
    for number in (signal.SIGKILL, signal.SIGTERM):
        stopped(bench, kind, number.name, number)
        folder, metrics = run(bench, kind, number.name)
        assert 0 < metrics["resumed_from_step"] < STEPS
        for name in ("model.safetensors", "raw.safetensors", "records/metrics.jsonl"):
            assert (folder / name).read_bytes() == (straight / name).read_bytes(), name
