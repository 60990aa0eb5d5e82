"""What one GPU does: equalities that must hold there, and speeds; one table.

    benchmarks/gpu/run.sh [--device cuda] [--scale full|tiny] [--out FILE] [--only WORD]

Checks: a training on the device against the CPU (float32), bit-exact resume, one batch against
micro-batches, compiled blocks against eager ones, documents by the varlen kernel against the dense
mask. Speeds are the trainer's own: records/throughput.jsonl, MFU by the formula that
foundry_core/training/flops.py states and its table of peaks. `--scale tiny` runs all of it at a
width a CPU can do, to try the script. The budget of ten minutes is for `--scale full` on one
H100 or H200.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundry_core.models.build import build_model
from foundry_core.models.config import TransformerConfig, VLAConfig, VLMConfig
from foundry_core.models.layers import Visibility, document_offsets
from foundry_core.models.presets import load_preset
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.distributed import World, blocks_of
from foundry_core.training.loop import Trainer
from foundry_core.training.objectives import ActionLoss, TextLoss

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
    def batches(first: int) -> Iterator[Any]:
        for step in range(first, 10_000):
            yield {"robot": robot_batch(config, rows, step, images)}

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
) -> Trainer:
    training = {"steps": steps, "precision": precision, "schedule": {"warmup": 1}}
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
    """Lines of what was compared; AssertionError where something differs."""
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
    return [*found, check_compiled(device), check_documents(device)]


def check_compiled(device: str) -> str:
    """Compiled blocks against eager ones: gradients of one float32 step."""
    batch = next(text_batches(4, 32, 64)(0))["text"]
    gradients = []
    for compiled in (False, True):
        model = build_model(language("tiny", 32), seed=0).to(device)
        if compiled:
            for block in blocks_of(model):
                block.compile(dynamic=False)
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
    """(medians of the trainer's rows after the first half, the model). A checkpoint is written
    after the last step but one; `checkpoint_seconds` is what it kept the steps waiting."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as name:
        with torch.device(device):
            model = make()
        every = STEPS - 1
        folder = Path(name)
        one = trainer(
            model, objectives, batches, STEPS, device, folder, checkpoint_every=every, **more
        )
        one.train()
        text = (folder / "records" / "throughput.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    stall = max(row["checkpoint_seconds"] for row in rows)
    warm = [row for row in rows[STEPS // 2 :] if not row["checkpoint_seconds"]]
    medians = {key: sorted(r[key] for r in warm)[len(warm) // 2] for key in warm[0]}
    return {**medians, "checkpoint_seconds": stall}, model


def cells(name: str, rate: str, found: dict[str, float]) -> list[str]:
    gib = found.get("memory_allocated_gib")
    return [
        name,
        rate,
        f"{found['seconds']:.3f}",
        f"{100 * found['mfu']:.1f}",
        f"{gib:.1f}" if gib else "",
        f"{found['checkpoint_seconds']:.2f}",
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
    """One chunk for 1 and 8 clients: eager, compiled, and as CUDA graphs (torch's own capture,
    mode reduce-overhead; a CPU has none)."""
    config, images = policy(scale), 4
    with torch.device(device):
        model = build_model(config).eval()
    modes = {"eager": None, "compiled": "default"}
    if device == "cuda":
        modes["CUDA graphs"] = "reduce-overhead"
    found = []
    for label, mode in modes.items():
        act = model.act if mode is None else torch.compile(model.act, mode=mode, dynamic=False)
        for clients in (1, 8):
            batch = {n: t.to(device) for n, t in robot_batch(config, clients, 0, images).items()}
            seconds = chunk_seconds(act, batch, device)
            name = f"a chunk of 16 actions, {images} images, {clients} clients, {label}"
            found.append([name, f"{1e3 * seconds:.1f} ms", "", "", "", ""])
    return found


def chunk_seconds(act: Any, batch: dict[str, Tensor], device: str) -> float:
    """Median of ten calls after five."""
    inputs = (batch["images"], batch["tokens"], None, batch["proprio"])
    seeds = torch.zeros_like(batch["draw_ids"])
    times = []
    for number in range(15 if device == "cuda" else 4):
        synchronise(device)
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16), torch.inference_mode():
            act(*inputs, seeds=seeds, steps=seeds + number)
        synchronise(device)
        times.append(time.perf_counter() - started)
    late = sorted(times[len(times) // 3 :])
    return late[len(late) // 2]


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def jobs(scale: str, device: str) -> dict[str, Job]:
    """By a word that --only names; in the order of what is asked first."""
    fast: dict[str, Any] = {"compiled": True}
    if device == "cuda":
        fast["precision"] = "bf16_weights"
    big, so400m = scale == "full", "vit_so400m_14_224"
    rows, again = (16 if big else 4), ("language",)
    part = 8 if big else None
    return {
        "llm": lambda: text_row(scale, device, "1b", rows, micro_batch=part, **fast),
        "llm-eager": lambda: text_row(scale, device, "1b", rows, micro_batch=part),
        "7b": lambda: text_row(
            scale, device, "7b", rows, micro_batch=part, recompute=again, **fast
        ),
        "vla": lambda: policy_rows(
            scale, device, None, 2 * rows, micro_batch=2 * (part or rows), **fast
        ),
        "vla-2b": lambda: policy_rows(
            scale, device, so400m if big else None, 2 * rows, micro_batch=2 * (part or rows), **fast
        ),
        "chunk": lambda: latency_rows(scale, device),
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
        lines += [f"- {line}" for line in check_equalities(options.device)]
    lines += ["", "| what | rate | s/step | MFU % | peak GiB | checkpoint s |", f"|{'---|' * 6}"]
    for label, job in jobs(options.scale, options.device).items():
        if label not in wanted:
            continue
        try:
            lines += [f"| {' | '.join(row)} |" for row in job()]
        except torch.OutOfMemoryError as error:
            lines.append(f"| {label}: out of memory | {str(error).splitlines()[0][:80]} | | | | |")
        if options.device == "cuda":
            torch.cuda.empty_cache()
        torch.compiler.reset()
        print(lines[-1], file=sys.stderr, flush=True)
        if options.out:  # what is there if the time is up
            options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
