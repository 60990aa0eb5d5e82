"""Equalities that must hold on a device."""

import contextlib
import copy
import json
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from cases import chunk_inputs, language, policy, text_batches, trainer
from torch import Tensor

from foundry_core.models.blocks import compile_blocks
from foundry_core.models.build import build_model
from foundry_core.models.inference import Acceleration, Actor
from foundry_core.models.layers import Visibility, document_offsets
from foundry_core.training.objectives import TextLoss


class Stop(Exception):
    pass


def losses(folder: Path) -> list[float]:
    text = (folder / "records" / "metrics.jsonl").read_text()
    return [json.loads(line)["loss"] for line in text.splitlines()]


def check_equalities(device: str) -> list[str]:
    """What was compared; AssertionError where something differs."""
    config = language("tiny", 32)
    objectives, batches = {"text": TextLoss()}, text_batches(4, 32, 64)
    found = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)

        def run(
            label: str, where: str, steps: int = 8, source: Any = batches, **more: Any
        ) -> dict[str, Tensor]:
            model = build_model(config, seed=0)
            (root / label).mkdir(exist_ok=True)
            one = trainer(model, objectives, source, steps, where, root / label, **more)
            one.train()
            return {name: value.detach().cpu() for name, value in model.state_dict().items()}

        exact = {"precision": "fp32"}
        cpu, gpu = run("cpu", "cpu", **exact), run("gpu", device, **exact)
        apart = max(float((cpu[name] - gpu[name]).abs().max()) for name in cpu)
        assert apart < 2e-3, apart
        curves = [losses(root / label) for label in ("cpu", "gpu")]
        gap = max(abs(a - b) for a, b in zip(*curves, strict=True))
        assert gap < 1e-3, gap
        found.append(f"CPU and {device}, float32, 8 steps: losses within {gap:.1e}")

        def broken(first: int) -> Iterator[Any]:
            for step, batch in enumerate(batches(first), start=first):
                if step == 5:
                    raise Stop
                yield batch

        straight = run("straight", device)
        with contextlib.suppress(Stop):
            run("broken", device, source=broken, checkpoint_every=2)
        resumed = run("broken", device, checkpoint_every=2)
        assert all(torch.equal(straight[name], resumed[name]) for name in straight)
        found.append("resume after a stop at step 5: bit for bit")
        parts = run("parts", device, micro_batch=2, **exact)
        apart = max(float((gpu[name] - parts[name]).abs().max()) for name in gpu)
        assert apart < 2e-3, apart
        found.append(f"micro-batches of 2 against one batch of 4: weights within {apart:.1e}")
    return found


def checks(device: str) -> list[str]:
    """A line of each; those that fail say FAILED, and the others are made all the same."""
    wanted: list[Callable[[], list[str]]] = [
        lambda: check_equalities(device),
        lambda: [check_compiled(device)],
        lambda: [check_documents(device)],
        lambda: [check_waits(device)],
    ]
    if device == "cuda":
        wanted.append(check_graphs)
    found = []
    for check in wanted:
        try:
            found += check()
        except Exception as error:
            traceback.print_exc()
            found.append(f"FAILED: {type(error).__name__}: {error}"[:200])
    return found


def check_waits(device: str) -> str:
    """A whole step on prepared batches; torch raises where the host would wait for a GPU."""
    with tempfile.TemporaryDirectory() as name:
        batches = text_batches(4, 32, 64)
        model = build_model(language("tiny", 32), seed=0)
        one = trainer(model, {"text": TextLoss()}, batches, 4, device, Path(name))
        one.build()
        for number in range(3):
            batch = next(batches(number))
            with waiting_is_an_error(device) if number == 2 else contextlib.nullcontext():
                one.step(number, batch)
    how = "sync debug mode" if device == "cuda" else "not looked for on a CPU"
    return f"forward, backward, norm and update: the host waits 0 times ({how})"


@contextlib.contextmanager
def waiting_is_an_error(device: str) -> Iterator[None]:
    if device != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_graphs() -> list[str]:
    config = policy("tiny")
    model = build_model(config, seed=0).cuda()
    found = []
    for compiled in (False, True):
        eager = Actor(copy.deepcopy(model), Acceleration(precision="bf16", compiled=compiled))
        how = Acceleration(precision="bf16", compiled=compiled, graphs=True)
        graphs = Actor(copy.deepcopy(model), how)
        apart = 0.0
        for seed in range(4):
            inputs = chunk_inputs(config, 2, 2, "cuda", seed)
            chunks = [act(**inputs) for act in (eager, graphs)]
            apart = max(apart, float((chunks[0] - chunks[1]).abs().max()))
        assert apart < 1e-3, apart
        word = "compiled" if compiled else "eager"
        found.append(f"replayed CUDA graphs against {word} chunks, bf16: within {apart:.1e}")
    return found


def check_compiled(device: str) -> str:
    """Compiled blocks against eager ones: gradients of one float32 step."""
    batch = next(text_batches(4, 32, 64)(0))["text"]
    gradients = []
    for compiled in (False, True):
        model = build_model(language("tiny", 32), seed=0).to(device)
        if compiled:
            compile_blocks(model)
        objective = TextLoss()
        prepared = {name: t.to(device) for name, t in objective.prepare(batch).items()}
        objective(model, prepared, None)["loss"].backward()  # type: ignore[arg-type]
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))  # type: ignore
    apart = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    assert apart < 1e-3, apart
    return f"compiled blocks against eager ones, float32: gradient within {apart:.1e} of its norm"


def check_documents(device: str) -> str:
    """Packed rows by the kernel for many lengths (bf16 on a GPU; elsewhere the mask again) against
    the dense mask."""
    batch = next(text_batches(4, 96, 64)(0))["text"]
    tokens, segments = batch["tokens"][:, :-1].to(device), batch["segments"][:, :-1]
    offsets = document_offsets(segments).to(device)
    segments = segments.to(device)
    model = build_model(language("tiny", 96), seed=0).to(device)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        masked = model(tokens, Visibility(segments=segments)).float()
        varlen = model(tokens, Visibility(segments=segments, offsets=offsets)).float()
    apart = float((masked - varlen).norm() / masked.norm())
    assert apart < 2e-2, apart
    return f"documents by the varlen kernel against the dense mask, bf16: within {apart:.1e}"
