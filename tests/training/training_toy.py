"""A small regression problem with two modalities, and a Trainer over it."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from foundry_core.models.layers import LayerNorm
from foundry_core.models.noise import Key, normal
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.distributed import World
from foundry_core.training.loop import Trainer
from foundry_core.training.mixed_batch import DATASETS, ROWS, Batch, MixedBatch, StepKey
from foundry_core.training.validation.config import ValidationConfig
from foundry_core.training.validation.validator import Validator


class ToyObjective:
    """Masked squared error of a noised linear target."""

    def elements(self, batch: Batch) -> Tensor:
        return batch["mask"].sum(dim=1)

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        noise = normal(Key(key.seed, key.step, batch["sample_ids"]), batch["y"].shape[1:], stream=1)
        error = model(batch["x"] + 0.1 * noise) - batch["y"]
        rows = (error.square() * batch["mask"]).sum(dim=1)
        return {"loss": rows.sum(), ROWS: rows.detach()}


class ToyModel(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.norm = LayerNorm(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](torch.tanh(self.layers[0](self.norm(x))))


def toy_batches(first: int, world: World = World(), sizes=(8, 4)) -> Iterator[MixedBatch]:
    step = first
    while True:
        batch = {}
        for modality, size in zip(("a", "b"), sizes, strict=True):
            ids = torch.arange(size) + size * step
            x = normal(Key(7, 0, ids), (6,), stream=ord(modality))
            mask = (normal(Key(8, 0, ids), (6,), stream=ord(modality)) > -0.5).float()
            y = torch.sin(x) + (1 if modality == "b" else 0)
            share = slice(world.rank * size // world.size, (world.rank + 1) * size // world.size)
            tensors = {"x": x, "y": y, "mask": mask, "sample_ids": ids, DATASETS: ids // 3 % 2}
            batch[modality] = {name: t[share] for name, t in tensors.items()}
        yield batch
        step += 1


def toy_trainer(folder: Path, *, steps: int = 20, batches=toy_batches, **changes) -> Trainer:
    training = {
        "steps": steps,
        "ema": {"kind": "power"},
        "schedule": {"warmup": 3},
        **changes.pop("training", {}),
    }
    resources = {
        "checkpoint_every_seconds": None,
        "log_every": 4,
        **changes.pop("resources", {}),
    }
    return Trainer(
        **{
            "model": ToyModel(),
            "objectives": {"a": ToyObjective(), "b": ToyObjective()},
            "weights": {"b": 0.5},
            "batches": batches,
            "config": TrainingConfig(**training),
            "total_steps": steps,
            "seed": 3,
            "resources": TrainResources(**resources),
            "scratch": folder / "scratch",
            "records": folder / "records",
            "progress": lambda *a, **k: None,
            **changes,
        }
    )


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters()}


class ToyProbe:
    """The objective's mean, without noise."""

    def prepare(self, batch: Batch) -> Batch:
        return batch

    def __call__(self, model: nn.Module, batch: Batch, key: StepKey) -> dict[str, Tensor]:
        error = (model(batch["x"]) - batch["y"]).square() * batch["mask"]
        return {"loss": error.sum()}

    def sums(self, batch: Batch, found: Batch) -> dict[str, tuple[float, float]]:
        return {"loss": (float(found["loss"]), float(batch["mask"].sum()))}


class ToyHeldOut:
    """Twelve samples that no step has."""

    counts: ClassVar = {"a": {"x": 12}}

    def facts(self) -> dict:
        return {"a": {"x": {"samples": 12, "of": 12, "recordings": None}}}

    def batches(self, name: str, label: str, rows: int, world: World) -> Iterator[Batch]:
        batch = next(toy_batches(10**6, world, sizes=(12, 4)))[name]
        yield batch


def toy_validator(**changes) -> Validator:
    config = ValidationConfig(**{"every": 4, **changes})
    return Validator(config=config, held_out=ToyHeldOut(), probes={"a": ToyProbe()}, seed=3)
