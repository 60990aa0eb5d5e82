"""What one GPU does: equalities that must hold there, and speeds.

    python benchmarks/gpu.py [--device cuda] [--scale full|tiny] [--out FILE]

Checks: a training on the device against the CPU (float32), bit-exact resume, one batch against
micro-batches. Speeds, per model of the presets: training samples and tokens per second, MFU,
memory, and the latency of one action chunk. MFU is (6·N + 12·L·H·Q·T) · tokens/s / peak for the
language model, N without embeddings, and for policies the FLOPs that
torch.utils.flop_counter counts on the real step; peak is 989 TFLOP/s (dense bf16, H100 and H200).
`--scale tiny` runs all of it at a width a CPU can do, to try the script.
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
from torch.utils.flop_counter import FlopCounterMode

from foundry_core.models.build import build_model
from foundry_core.models.config.language import TransformerConfig
from foundry_core.models.config.vla import VLAConfig
from foundry_core.models.config.vlm import VLMConfig
from foundry_core.models.noise import Key
from foundry_core.models.presets import load_preset
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.distributed import World
from foundry_core.training.loop import Trainer
from foundry_core.training.objectives import ActionLoss, TextLoss

PEAK = 989e12
IMAGE, OBS = 7, 8
TINY_HEAD = {"kind": "flow", "dim": 32, "n_layers": 2, "n_heads": 2, "ffn_dim": 64}
TINY_LLM = {"dim": 32, "n_layers": 2, "n_heads": 2, "ffn_dim": 64, "vocab_size": 64}
TINY_VISION = {"kind": "vit", "image_size": 28, "patch_size": 14, "dim": 16, "n_layers": 1}


def language(scale: str, context: int) -> TransformerConfig:
    config = load_preset("llm_1b") if scale == "full" else TransformerConfig(**TINY_LLM)
    assert isinstance(config, TransformerConfig)
    return config.model_copy(update={"context": context})


def policy(scale: str) -> VLAConfig:
    """foundry_vla: the 1.2B language model, a ViT-B/14, the paper's head; 20 actions ahead 16."""
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
    micro_batch: int | None = None,
    progress: Callable[..., None] = lambda *_, **__: None,
    checkpoint_every: int | None = None,
) -> Trainer:
    training = {"steps": steps, "precision": precision, "schedule": {"warmup": 1}}
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
    return found


def speed(
    make: Callable[[], nn.Module],
    objectives: Any,
    batches: Any,
    steps: int,
    device: str,
    **more: Any,
) -> tuple[float, float, nn.Module]:
    """(seconds per step after a quarter of warm-up, peak GiB, the model)."""
    times: list[float] = []

    def batches_timed(first: int) -> Iterator[Any]:
        for batch in batches(first):
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter())
            yield batch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as name:
        with torch.device(device):
            model = make()
        one = trainer(model, objectives, batches_timed, steps, device, Path(name), **more)
        one.train()
    if device == "cuda":
        torch.cuda.synchronize()
    times.append(time.perf_counter())
    warm = max(1, steps // 4)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
    return (times[-1] - times[warm]) / (len(times) - 1 - warm), memory, model


def text_row(scale: str, device: str, rows: int, micro_batch: int | None) -> list[str]:
    context = 2048 if scale == "full" else 64
    config = language(scale, context)
    batches = text_batches(rows, context, config.vocab_size or 64)
    seconds, memory, model = speed(
        lambda: build_model(config),
        {"text": TextLoss()},
        batches,
        12,
        device,
        micro_batch=micro_batch,
    )
    total = sum(p.numel() for p in model.parameters())
    table = (config.vocab_size or 64) * config.dim * (1 if config.tie_embeddings else 2)
    per_token = 6 * (total - table) + 12 * config.n_layers * config.dim * context
    # The output projection is real work; only the input look-up is free.
    per_token += 6 * (config.vocab_size or 64) * config.dim
    rate = rows * context / seconds
    return [
        f"LLM {total / 1e9:.2f}B, context {context}, batch {rows}, micro-batch {micro_batch}",
        f"{rate:,.0f} tokens/s",
        f"{seconds:.3f}",
        f"{100 * per_token * rate / PEAK:.1f}",
        f"{memory:.1f}",
    ]


def policy_rows(scale: str, device: str, rows: int, micro_batch: int | None) -> list[list[str]]:
    config = policy(scale)
    images = 4
    backbone = config.backbone
    assert isinstance(backbone, VLMConfig)
    objective = ActionLoss(
        image_token_id=IMAGE, obs_token_id=OBS, tokens_per_image=backbone.tokens_per_image
    )
    seconds, memory, model = speed(
        lambda: build_model(config),
        {"robot": objective},
        robot_batches(config, rows, images),
        12,
        device,
        micro_batch=micro_batch,
    )
    total = sum(p.numel() for p in model.parameters())
    batch = {k: v.to(device) for k, v in robot_batch(config, 1, 0, images).items()}
    inputs = (batch["images"], batch["tokens"], None, batch["proprio"])
    key = Key(0, 0, batch["draw_ids"])
    with FlopCounterMode(display=False) as counter:
        loss, _ = model.training_loss_terms(*inputs, batch["actions"], batch["action_mask"], key)
        loss.backward()
    flops = counter.get_total_flops()
    found = [
        [
            f"VLA {total / 1e9:.2f}B, {images} images, batch {rows}, micro-batch {micro_batch}, "
            f"{flops / 1e9:,.0f} GFLOP a sample",
            f"{rows / seconds:.1f} samples/s",
            f"{seconds:.3f}",
            f"{100 * flops * rows / seconds / PEAK:.1f}",
            f"{memory:.1f}",
        ]
    ]
    model.eval()
    act = model.act
    assert callable(act)
    times = []
    for number in range(12):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16), torch.inference_mode():
            act(*inputs, seeds=0, steps=number)
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    median = sorted(times[2:])[len(times[2:]) // 2]
    found.append(
        [f"one chunk of 16 actions, {images} images", f"{1e3 * median:.1f} ms", "", "", ""]
    )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--scale", choices=("full", "tiny"), default="full" if gpu else "tiny")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    lines = [f"{name}, torch {torch.__version__}, scale {options.scale}", ""]
    lines += [f"- {line}" for line in check_equalities(options.device)]
    lines += ["", "| what | rate | s/step | MFU % | peak GiB |", "|---|---|---|---|---|"]
    full = options.scale == "full"
    jobs: list[Callable[[], list[list[str]]]] = [
        lambda: [text_row(options.scale, options.device, *((16, 4) if full else (4, 2)))],
        lambda: [text_row(options.scale, options.device, *((16, 8) if full else (4, None)))],
        lambda: policy_rows(options.scale, options.device, *((32, 8) if full else (4, 2))),
        lambda: policy_rows(options.scale, options.device, *((32, 16) if full else (4, None))),
    ]
    for job in jobs:
        try:
            lines += [f"| {' | '.join(row)} |" for row in job()]
        except torch.OutOfMemoryError as error:
            lines.append(f"| out of memory | {str(error).splitlines()[0][:80]} | | | |")
        if options.device == "cuda":
            torch.cuda.empty_cache()
        print(lines[-1], file=sys.stderr, flush=True)
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
