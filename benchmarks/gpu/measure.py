"""What one GPU does: equalities that must hold there, and speeds; one table.

    benchmarks/gpu/run.sh [--device cuda] [--scale full|tiny] [--out FILE] [--only WORD]

Checks: a training on the device against the CPU (float32), bit-exact resume, one batch against
micro-batches, compiled blocks against eager ones, documents by the varlen kernel against the dense
mask, a replayed CUDA graph against the eager chunk, a step without a wait of the host. Speeds are
the trainer's own: records/throughput.jsonl, MFU by the formula that foundry_core/training/flops.py
states and its table of peaks. `--scale tiny` runs all of it at a width a CPU can do, to try the
script. The budget of ten minutes is for `--scale full` on one H100 or H200.
"""

import argparse
import gc
import importlib.util
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cases import IMAGE, OBS, chunk_inputs, language, policy, robot_batches, text_batches, trainer
from checks import checks
from torch import nn

from foundry_core.models.build import build_model
from foundry_core.models.config import VLAConfig, VLMConfig
from foundry_core.models.cross_entropy import linear_cross_entropy
from foundry_core.models.inference import Acceleration, Actor
from foundry_core.models.vla import VLA
from foundry_core.training.objectives import ActionLoss, TextLoss

Job = Callable[[], list[list[str]]]
STEPS = 10


def speed(
    make: Callable[[], nn.Module], objectives: Any, batches: Any, device: str, **more: Any
) -> tuple[dict[str, float], nn.Module]:
    """(medians of the trainer's rows after the first half, the model). With checkpoint_every,
    `checkpoint_seconds` is what the last save kept the steps waiting: the first makes buffers."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as name:
        with torch.device(device):
            model = make()
        folder = Path(name)
        trainer(model, objectives, batches, STEPS, device, folder, **more).train()
        text = (folder / "records" / "throughput.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    stalls = [row["checkpoint_seconds"] for row in rows if row["checkpoint_seconds"]]
    warm = [row for row in rows[STEPS // 2 :] if not row["checkpoint_seconds"]]
    medians = {key: sorted(r[key] for r in warm)[len(warm) // 2] for key in warm[0]}
    return {**medians, "checkpoint_seconds": stalls[-1] if stalls else 0.0}, model


def cells(name: str, rate: str, found: dict[str, float]) -> list[str]:
    gib = found.get("memory_allocated_gib")
    return [
        name,
        rate,
        f"{found['seconds']:.3f}",
        f"{100 * found['mfu']:.1f}",
        f"{gib:.1f}" if gib else "",
        f"{found['checkpoint_seconds']:.2f}" if found["checkpoint_seconds"] else "",
    ]


def text_row(scale: str, device: str, shape: str, rows: int, **more: Any) -> list[list[str]]:
    context = 2048 if scale == "full" else 64
    config = language(scale, context, shape)
    batches = text_batches(rows, context, config.vocab_size or 64)
    found, model = speed(lambda: build_model(config), {"text": TextLoss()}, batches, device, **more)
    total = sum(p.numel() for p in model.parameters())
    name = f"LLM {total / 1e9:.2f}B ({shape} shape), context {context}, batch {rows}{told(more)}"
    return [cells(name, f"{found['tokens_per_second']:,.0f} tokens/s", found)]


def policy_rows(
    scale: str, device: str, tower: str | None, rows: int, **more: Any
) -> list[list[str]]:
    config, images = policy(scale, tower), 4
    backbone = config.backbone
    assert isinstance(backbone, VLMConfig)
    objective = ActionLoss(
        image_token_id=IMAGE, obs_token_id=OBS, tokens_per_image=backbone.tokens_per_image
    )
    batches = robot_batches(config, rows, images)
    found, model = speed(lambda: build_model(config), {"robot": objective}, batches, device, **more)
    total = sum(p.numel() for p in model.parameters())
    name = f"VLA {total / 1e9:.2f}B, {images} images, batch {rows}{told(more)}"
    return [cells(name, f"{found['samples_per_second']:.1f} samples/s", found)]


def told(more: dict[str, Any]) -> str:
    return "".join(f", {name} {value}" for name, value in more.items() if value)


def latency_rows(scale: str, device: str) -> list[list[str]]:
    """One chunk for 1 and 8 clients: eager, as CUDA graphs (a CPU has none), compiled, both."""
    config, images = policy(scale), 4
    with torch.device(device):
        model = build_model(config)
    found = []
    for compiled in (False, True):  # in this order: compiling changes the model
        for graphs in (False, True) if device == "cuda" else (False,):
            how = Acceleration(precision="bf16", compiled=compiled, graphs=graphs)
            assert isinstance(model, VLA)
            act = Actor(model, how)
            words = ["compiled"] * compiled + ["CUDA graphs"] * graphs or ["eager"]
            for clients in (1, 8):
                seconds = chunk_seconds(act, config, clients, images, device)
                name = f"a chunk of 16 actions, {images} images, {clients} clients"
                label = f"{name}, {', '.join(words)}"
                found.append([label, f"{1e3 * seconds:.1f} ms", "", "", "", ""])
    return found


def chunk_seconds(act: Actor, config: VLAConfig, clients: int, images: int, device: str) -> float:
    """Median of twenty calls after ten."""
    inputs: dict[str, Any] = chunk_inputs(config, clients, images, device)
    times = []
    for _ in range(30 if device == "cuda" else 4):
        synchronise(device)
        started = time.perf_counter()
        act(**inputs)
        synchronise(device)
        times.append(time.perf_counter() - started)
    late = sorted(times[len(times) // 3 :])
    return late[len(late) // 2]


def loss_rows(scale: str, device: str) -> list[list[str]]:
    """Cross-entropy with both gradients, ours against torch's on whole logits."""
    rows, width, words = (8192, 2048, 50432) if scale == "full" else (64, 32, 512)
    with torch.device(device):
        hidden = torch.randn(rows, width, dtype=torch.bfloat16, requires_grad=True)
        weight = (0.02 * torch.randn(words, width)).requires_grad_()
        targets = torch.randint(0, words, (rows,))

    def ours(compiled: bool) -> None:
        linear_cross_entropy(hidden, weight, targets, compiled=compiled)[0].backward()

    def whole() -> None:
        logits = hidden @ weight.to(torch.bfloat16).t()
        nn.functional.cross_entropy(logits.float(), targets, reduction="sum").backward()

    found = []
    ways: dict[str, Callable[[], None]] = {
        "in slices": lambda: ours(False),
        "in slices, compiled": lambda: ours(True),
        "torch's, whole": whole,
    }
    for name, function in ways.items():
        times = []
        for _ in range(8):
            synchronise(device)
            started = time.perf_counter()
            with torch.autocast(device, torch.bfloat16):
                function()
            synchronise(device)
            times.append(time.perf_counter() - started)
        label = f"cross-entropy {name}, {rows} rows, {words} words"
        found.append([label, f"{1e3 * sorted(times)[len(times) // 2]:.1f} ms", "", "", "", ""])
    return found


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def jobs(scale: str, device: str) -> dict[str, Job]:
    """By a word that --only names; in the order of what is asked first."""
    fast: dict[str, Any] = {"compiled": True}
    half = fast | ({"precision": "bf16_weights"} if device == "cuda" else {})
    eights: dict[str, Any] = {"fp8": {"emulated": True, "least": 16}}
    if device == "cuda":
        eights = fast | {"fp8": {"scaling": "tensor"}}
    big, so400m = scale == "full", "vit_so400m_14_224"
    texts, part = (32, 8) if big else (4, 2)
    robots, some = (128, 32) if big else (4, 2)
    saving = fast | {"checkpoint_every": STEPS // 2 - 1}
    return {
        "llm": lambda: text_row(scale, device, "1b", texts, micro_batch=part, **fast),
        "vla": lambda: policy_rows(scale, device, None, robots, micro_batch=some, **fast),
        "chunk": lambda: latency_rows(scale, device),
        "7b": lambda: text_row(scale, device, "7b", texts, micro_batch=part, **fast),
        "loss": lambda: loss_rows(scale, device),
        "saving": lambda: text_row(scale, device, "1b", texts, micro_batch=part, **saving),
        "vla-2b": lambda: policy_rows(
            scale, device, so400m if big else None, robots, micro_batch=some // 2, **fast
        ),
        "llm-fsdp": lambda: text_row(scale, device, "1b", texts, micro_batch=part, **half),
        "7b-recomputed": lambda: text_row(
            scale, device, "7b", texts, micro_batch=part, recompute=("language",), **fast
        ),
        "llm-fp8": lambda: text_row(scale, device, "1b", texts, micro_batch=part, **eights),
        "7b-fp8": lambda: text_row(scale, device, "7b", texts, micro_batch=part, **eights),
        "llm-eager": lambda: text_row(scale, device, "1b", texts, micro_batch=part),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full" if gpu else "tiny")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", action="append", help="checks, llm, llm-eager, 7b, vla, ...")
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    lines = [f"{name}, torch {torch.__version__}, scale {options.scale}", ""]
    wanted = options.only or ["checks", *jobs(options.scale, options.device)]
    if "checks" in wanted:
        lines += [f"- {line}" for line in checks(options.device)]
        print("\n".join(lines), file=sys.stderr, flush=True)
    lines += ["", "| what | rate | s/step | MFU % | peak GiB | checkpoint s |", f"|{'---|' * 6}"]
    for label, job in jobs(options.scale, options.device).items():
        if label not in wanted:
            continue
        if label.endswith("-fp8") and importlib.util.find_spec("torchao") is None:
            lines.append(f"| {label}: skipped, torchao is not installed | | | | | |")
            continue
        began, before = time.monotonic(), len(lines)
        try:
            lines += [f"| {' | '.join(row)} |" for row in job()]
        except Exception as error:  # the others are to be measured all the same
            traceback.print_exc()
            what = f"{type(error).__name__}: {error}".splitlines()[0][:120]
            lines.append(f"| {label}: {what} | | | | | |")
        gc.collect()
        if options.device == "cuda":
            torch.cuda.empty_cache()
        torch.compiler.reset()
        seconds = time.monotonic() - began
        print(*lines[before:], f"{label}: {seconds:.0f} s", sep="\n", file=sys.stderr, flush=True)
        if options.out:  # what is there if the time is up
            options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
