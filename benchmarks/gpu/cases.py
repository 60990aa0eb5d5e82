"""Models, batches and trainings that checks and measurements share, at full and at tiny scale."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundry_core.models.config import TransformerConfig, VLAConfig, VLMConfig
from foundry_core.models.presets import load_preset
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.distributed import World
from foundry_core.training.loop import Trainer

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
    fp8: dict[str, Any] | None = None,
    micro_batch: int | None = None,
    recompute: tuple[str, ...] = (),
    progress: Callable[..., None] = lambda *_, **__: None,
    checkpoint_every: int | None = None,
    clip: float | None = 1.0,
) -> Trainer:
    training: dict[str, Any] = {"steps": steps, "precision": precision, "clip": clip}
    training |= {"schedule": {"warmup": 1}}
    training |= {"compile": "blocks" if compiled else "none", "fp8": fp8}
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


def chunk_inputs(
    config: VLAConfig, clients: int, images: int, device: str, seed: int = 0
) -> dict[str, Tensor | None]:
    """What Actor takes."""
    batch = {n: t.to(device) for n, t in robot_batch(config, clients, seed, images).items()}
    ids = batch["draw_ids"]
    named = {name: batch[name] for name in ("images", "tokens", "proprio")}
    return {**named, "token_mask": None, "seeds": ids, "steps": ids}
