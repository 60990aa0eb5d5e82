"""The curves of trainings, out of the rows they leave: those that ended and those that go on."""

from collections.abc import Mapping, Sequence
from typing import Any

from foundry_core.evaluation.comparison.report import Curves
from foundry_core.lineage.records import METRICS, VALIDATION, metric_lines
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact

Lines = Sequence[Mapping[str, Any]]
_POINTS = 300
_SHOWN = ("loss", "text_loss", "captions_loss", "robot_loss")


def recorded_curves(store: Store, artifact: Artifact, name: str) -> dict[str, Curves]:
    """Those of a committed artifact; see `stage_curves`."""
    # Small files: a remote store would fetch gigabytes of weights with the folder.
    lines = _lines(store, artifact, METRICS)
    return stage_curves(name, lines, _lines(store, artifact, VALIDATION) if lines else [])


def _lines(store: Store, artifact: Artifact, record: str) -> Lines:
    path = store.file_path(artifact, record)
    return metric_lines(path.parents[1].joinpath, record) if path else []


def stage_curves(name: str, lines: Lines, held_out: Lines) -> dict[str, Curves]:
    """Title of a picture → series → (step, value) of a stage's metrics.jsonl and validation.jsonl,
    thinned; empty ones left out."""
    found: dict[str, Curves] = {name: loss_series(lines)}
    for modality, series in dataset_series(lines).items():
        found[f"{name}: {modality}, by data set"] = series
    for measure, series in held_out_series(held_out).items():
        found[f"{name}: {measure}, held out"] = series
    return {title: series for title, series in found.items() if series}


def loss_series(rows: Lines) -> dict[str, list[tuple[float, float]]]:
    """Series → (step, value) of a training's records, thinned for a picture."""
    lines = _thinned(rows)
    series = {key: [(row["step"], row[key]) for row in lines if key in row] for key in _SHOWN}
    parts = [key for key in series if series[key]]
    if len(parts) == 2:
        parts.remove("loss")
    return {key: series[key] for key in parts}


def dataset_series(rows: Lines) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Modality → data set → (step, loss) of a training's records, thinned; of modalities with
    several data sets."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in _thinned(rows):
        for name, value in row.items():
            modality, told, label = name.partition("_loss/")
            if told:
                found.setdefault(modality, {}).setdefault(label, []).append((row["step"], value))
    return found


def held_out_series(lines: Lines) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Measure of a modality (robot position_mm) → weights → (step, value) of a training's
    validations, over all datasets. The nearest of several chunks stands beside the first one."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in _stepped(lines):
        for name, value in row.items():
            weights, *where = name.split("/")
            if len(where) != 2:  # of one dataset, or of one step of a chunk
                continue
            modality, measure = where
            line = f"{weights}, nearest chunk" if measure.startswith("best_") else weights
            series = found.setdefault(f"{modality} {measure.removeprefix('best_')}", {})
            series.setdefault(line, []).append((row["step"], value))
    return found


def _thinned(rows: Lines) -> list[Mapping[str, Any]]:
    """The last one is always among them."""
    lines = _stepped(rows)
    every = max(1, len(lines) // _POINTS)
    return lines[:-1][::every] + lines[-1:]


def _stepped(rows: Lines) -> list[Mapping[str, Any]]:
    return [row for row in rows if row.get("step") is not None]
