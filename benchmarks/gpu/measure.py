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
import contextlib
import copy
import gc
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundry_core.models.blocks import compile_blocks
from foundry_core.models.build import build_model
from foundry_core.models.config import TransformerConfig, VLAConfig, VLMConfig
from foundry_core.models.cross_entropy import linear_cross_entropy
from foundry_core.models.inference import Acceleration, Actor
from foundry_core.models.layers import Visibility, document_offsets
from foundry_core.models.presets import load_preset
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.distributed import World
from foundry_core.training.loop import Trainer
from foundry_core.training.mixed_batch import StepKey
from foundry_core.training.objectives import ActionLoss, TextLoss
from foundry_core.training.optim import gradient_norm, update

IMAGE, OBS = 7, 8
TINY_HEAD = {"kind": "flow", "dim": 32, "n_layers": 2, "n_heads": 2, "ffn_dim": 64}
TINY_LLM = {"dim": 32, "n_layers": 2, "n_heads": 2, "ffn_dim": 64, "vocab_size": 64}
TINY_VISION = {"kind": "vit", "image_size": 28, "patch_size": 14, "dim": 16, "n_layers": 1}


def language(scale: str, context: int, shape: str = "1b") -> TransformerConfig:
    """shape 7b: the width of a 7B model with 8 of its 32 layers, which is what fits with float32
    weights and moments beside the activations."""
    config = load_preset("llm_1b") if scale == "full" else TransformerConfig(**TINY_LLM)
    assert isinstance(config, TransformerConfig)
    changes: dict[str, Any] = {"context": context}
    if shape == "7b" and scale == "full":
        changes |= {"dim": 4096, "n_layers": 8, "n_heads": 32, "ffn_dim": 11008}
        changes |= {"head_dim": 128}
    return config.model_copy(update=changes)


def policy(scale: str, tower: str | None = None) -> VLAConfig:
    """foundry_vla: the 1.2B language model, a ViT-B/14, the paper's head; 16 steps of 20
    actions. tower: another preset of vision."""
    sizes = {
        "horizon": 16,
        "action_dim": 20,
        "proprio_dim": 20,
        "proprio_steps": 1,
        "obs_token_id": OBS,
    }
    if scale == "full":
        vlm, vla = load_preset("foundry_vlm"), load_preset("foundry_vla")
        assert isinstance(vlm, VLMConfig) and isinstance(vla, VLAConfig)
        vlm = vlm.model_copy(update={"image_token_id": IMAGE, "language": language(scale, 2048)})
        if tower:
            vlm = vlm.model_copy(update={"vision": load_preset(tower)})
        return vla.model_copy(update=sizes | {"backbone": vlm})
    vlm = VLMConfig.model_validate(
        {
            "language": TINY_LLM | {"kind": "transformer", "context": 256},
            "vision": TINY_VISION | {"n_heads": 2},
            "image_token_id": IMAGE,
        }
    )
    return VLAConfig.model_validate({"head": TINY_HEAD, "tap_layers": 2, "backbone": vlm} | sizes)


def text_batches(rows: int, context: int, vocabulary: int) -> Callable[[int], Iterator[Any]]:
    def batches(first: int) -> Iterator[Any]:
        for step in range(first, 10_000):
            generator = torch.Generator().manual_seed(step)
            tokens = torch.randint(10, vocabulary, (rows, context + 1), generator=generator)
            segments = (torch.arange(context + 1) // (context // 3 + 1)).expand(rows, -1)
            yield {"text": {"tokens": tokens, "segments": segments}}

    return batches


def robot_batch(config: VLAConfig, rows: int, seed: int, images: int, words: int = 40) -> Any:
    backbone = config.backbone
    assert isinstance(backbone, VLMConfig) and isinstance(backbone.language, TransformerConfig)
    generator = torch.Generator().manual_seed(seed)
    vocabulary = backbone.language.vocab_size or 64
    text = torch.randint(10, vocabulary, (rows, words), generator=generator)
    pictures = torch.full((rows, images * backbone.tokens_per_image), IMAGE)
    tokens = torch.cat([pictures, text, torch.full((rows, 1), OBS)], dim=1)
    size = backbone.image_size
    assert config.horizon and config.action_dim and config.proprio_dim
    shape = (rows, config.horizon, config.action_dim)
    return {
        "images": torch.randint(
            0, 256, (rows, images, 3, size, size), dtype=torch.uint8, generator=generator
        ),
        "tokens": tokens,
        "token_mask": torch.ones_like(tokens, dtype=torch.bool),
        "proprio": torch.randn((rows, 1, config.proprio_dim), generator=generator),
        "actions": torch.randn(shape, generator=generator),
        "action_mask": torch.ones(shape, dtype=torch.bool),
        "draw_ids": torch.arange(rows) + seed * rows,
    }


def robot_batches(config: VLAConfig, rows: int, images: int) -> Callable[[int], Iterator[Any]]:
    """The same two in turn: drawing pixels would take longer than a step."""
    made = [{"robot": robot_batch(config, rows, seed, images)} for seed in range(2)]

    def batches(first: int) -> Iterator[Any]:
        for step in range(first, 10_000):
            yield made[step % 2]

    return batches


class Stop(Exception):
    pass


def trainer(
    model: nn.Module,
    objectives: Any,
    batches: Any,
    steps: int,
    device: str,
    folder: Path,
    *,
    precision: str = "bf16",
    compiled: bool = False,
    micro_batch: int | None = None,
    recompute: tuple[str, ...] = (),
    progress: Callable[..., None] = lambda *_, **__: None,
    checkpoint_every: int | None = None,
    clip: float | None = 1.0,
) -> Trainer:
    training: dict[str, Any] = {"steps": steps, "precision": precision, "clip": clip}
    training |= {"schedule": {"warmup": 1}}
    training |= {"compile": "blocks" if compiled else "none"}
    return Trainer(
        model=model,
        objectives=objectives,
        batches=batches,
        config=TrainingConfig.model_validate(training),
        total_steps=steps,
        seed=0,
        resources=TrainResources(
            log_every=1,
            micro_batch=micro_batch,
            recompute=recompute,
            strategy="fsdp" if precision == "bf16_weights" else "ddp",
            peak_tflops=None if device == "cuda" else 0.1,
            checkpoint_every_seconds=None,
            checkpoint_every_steps=checkpoint_every,
        ),
        scratch=folder / "scratch",
        records=folder / "records",
        progress=progress,
        world=World(device=torch.device(device)),
    )


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
    ]
    if device == "cuda":
        wanted += [lambda: [check_waits()], check_graphs]
    found = []
    for check in wanted:
        try:
            found += check()
        except Exception as error:
            traceback.print_exc()
            found.append(f"FAILED: {type(error).__name__}: {error}"[:200])
    return found


def check_waits() -> str:
    """A whole step on prepared batches; torch raises where the host would wait for the device."""
    with tempfile.TemporaryDirectory() as name:
        batches = text_batches(4, 32, 64)
        model = build_model(language("tiny", 32), seed=0)
        one = trainer(model, {"text": TextLoss()}, batches, 4, "cuda", Path(name))
        one._prepare()
        one._resume()
        for step in range(3):
            batch = next(batches(step))
            torch.cuda.set_sync_debug_mode("error" if step == 2 else "default")
            values = one._backward(batch, StepKey(seed=0, step=step))
            values["grad_norm"] = gradient_norm(one.optimizer)
            update(one.optimizer, values["loss"], values["grad_norm"], 1.0)
        torch.cuda.set_sync_debug_mode("default")
    return "forward, backward, norm and update: the host waits 0 times (sync debug mode)"


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
            act = Actor(model, how)
            words = ["compiled"] * compiled + ["CUDA graphs"] * graphs or ["eager"]
            for clients in (1, 8):
                seconds = chunk_seconds(act, config, clients, images, device)
                name = f"a chunk of 16 actions, {images} images, {clients} clients"
                label = f"{name}, {', '.join(words)}"
                found.append([label, f"{1e3 * seconds:.1f} ms", "", "", "", ""])
    return found


def chunk_inputs(
    config: VLAConfig, clients: int, images: int, device: str, seed: int = 0
) -> dict[str, Tensor | None]:
    """What Actor takes."""
    batch = {n: t.to(device) for n, t in robot_batch(config, clients, seed, images).items()}
    ids = batch["draw_ids"]
    named = {name: batch[name] for name in ("images", "tokens", "proprio")}
    return {**named, "token_mask": None, "seeds": ids, "steps": ids}


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
