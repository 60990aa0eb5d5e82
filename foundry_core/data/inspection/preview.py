"""`foundry data preview`: what a batch really contains."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foundry_core.data.inspection.check import coverage_table
from foundry_core.data.loading.config import CAPTIONS, TEXT
from foundry_core.data.loading.loader import Loader, MixedBatch
from foundry_core.data.robot.coverage import FieldCoverage
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.narrow import Fitting


def preview(
    loader: Loader,
    tokenizer: Tokenizer,
    step: int = 0,
    coverage: Mapping[str, FieldCoverage] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """What the batch of a step holds: {step, modalities, report, normalization, notes}. coverage:
    of the statistics by the normaliser, for robot data. notes: of the training that reads it.

    Per modality: datasets {label: {samples, share of the draws, size of the dataset, drawn: of how
    many the weight is above 0}}, tensors {name: {shape, dtype, min, mean, max}}, epoch_length
    (draws in which every sample comes once; None in a weighted mix), its first sample's text, and
    shares of the batch such as `padding`.
    """
    batch = loader.batch(step)
    modalities = {}
    for name, part in batch.items():
        modality = loader.modalities[name]
        owners = np.searchsorted(modality.first_ids, part["sample_ids"].numpy(), side="right") - 1
        modalities[name] = {
            "datasets": {
                label: {
                    "samples": int(np.count_nonzero(owners == number)),
                    "share": modality.order.shares[number],
                    "size": int(modality.order.sizes[number]),
                    "drawn": modality.order.drawn(number),
                }
                for number, label in enumerate(modality.labels)
            },
            "tensors": {key: _tensor(value.numpy()) for key, value in part.items()},
            "epoch_length": modality.order.epoch_length,
            **_contents(name, part, tokenizer),
        }
    return {
        "step": step,
        "modalities": modalities,
        "report": loader.report(),
        "normalization": {name: asdict(field) for name, field in (coverage or {}).items()},
        "notes": list(notes),
    }


def render_preview(preview: dict[str, Any]) -> RenderableType:
    """Tables per modality: datasets, tensors, shares."""
    parts: list[RenderableType] = []
    for title, modality in preview["modalities"].items():
        datasets = Table(title=f"{title}, step {preview['step']}", title_justify="left")
        for heading in ("dataset", "samples", "share", "of"):
            datasets.add_column(heading)
        for label, part in modality["datasets"].items():
            whole, drawn = part["size"], part["drawn"]
            size = str(whole) if drawn == whole else f"{drawn}, {whole - drawn} never drawn"
            datasets.add_row(label, str(part["samples"]), f"{part['share']:.4f}", size)
        tensors = Table()
        for heading in ("tensor", "shape", "dtype", "min", "mean", "max"):
            tensors.add_column(heading)
        for name, entry in modality["tensors"].items():
            values = [f"{v:.4g}" for v in (entry["min"], entry["mean"], entry["max"])]
            tensors.add_row(name, str(entry["shape"]), entry["dtype"], *values)
        parts += [Fitting(datasets), Fitting(tensors)]
        for key, value in modality.items():
            if isinstance(value, float):
                parts.append(Text(f"{key.replace('_', ' ')}: {value:.3f}"))
        if modality["epoch_length"]:
            parts.append(Text(f"every sample once in {modality['epoch_length']} draws"))
        parts.append(Text(f"first sample: {modality['first_sample'][:300]!r}\n"))
    if preview["normalization"]:
        parts.append(coverage_table(preview["normalization"]))
    parts += [Text(note) for note in preview["notes"]]
    return Group(*parts)


def save_images(batch: MixedBatch, folder: Path, limit: int = 8) -> list[Path]:
    """Contact sheet per modality with images, and of depth: a row per sample, a column an image."""
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in batch.items():
        if "images" not in part:
            continue
        images = part["images"][:limit].numpy()
        rows, columns, _, height, width = images.shape
        sheet = images.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, 3)
        path = folder / f"{name}.png"
        Image.fromarray(sheet).save(path)
        written.append(path)
        if "depth" in part:
            written.append(_save_depth(part["depth"][:limit].numpy(), folder / f"{name}_depth.png"))
    return written


def _save_depth(depth: np.ndarray, path: Path) -> Path:
    """[B, N, h, w] in metres: near is bright, black is no depth."""
    known = depth[depth > 0]
    near, far = (known.min(), known.max()) if known.size else (0.0, 1.0)
    share = (depth - near) / max(far - near, 1e-6)
    grey = np.where(depth > 0, 255 - 205 * share, 0).round().astype(np.uint8)
    rows, columns, height, width = grey.shape
    sheet = grey.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    Image.fromarray(sheet).save(path)
    return path


def _contents(name: str, part: Mapping[str, torch.Tensor], tokenizer: Tokenizer) -> dict[str, Any]:
    first = tokenizer.decode(part["tokens"][0].tolist())
    if name == TEXT:
        documents = part["segments"].numpy().max(axis=1) + 1
        return {"documents_per_row": float(documents.mean()), "first_sample": first}
    if name == CAPTIONS:
        targets = part["target_mask"]
        caption = tokenizer.decode(part["tokens"][0][targets[0]].tolist())
        return {
            "padding": 1 - float(part["token_mask"].float().mean()),
            "targets": float(targets.float().mean()),
            "first_sample": caption,
        }
    real = part["token_mask"]
    return {
        "padding": 1 - float(real.float().mean()),
        "valid_action_steps": float(part["action_mask"].any(dim=2).float().mean()),
        "first_sample": tokenizer.decode(part["tokens"][0][real[0]].tolist()),
    }


def _tensor(values: np.ndarray) -> dict[str, Any]:
    numbers = values.astype(np.float64)
    return {
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "min": float(numbers.min()),
        "mean": float(numbers.mean()),
        "max": float(numbers.max()),
    }
