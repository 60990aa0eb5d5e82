"""The curves of trainings, out of the rows they leave: those that ended and those that go on."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.report import Curves
from foundry_core.files import read_json
from foundry_core.lineage.records import HELD_OUT, METRICS, VALIDATION, metric_lines
from foundry_core.pipeline.stage import Config
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact
from foundry_core.training.validation.measures import NEAREST, title

Lines = Sequence[Mapping[str, Any]]
Points = Sequence[tuple[float, float]]
_POINTS = 300
_NEAREST = ", nearest chunk"
_SHOWN = ("loss", "text_loss", "captions_loss", "robot_loss")


class _Read(Config):
    samples: int
    of: int
    recordings: int | None


class _HeldOut(Config):
    read: dict[str, dict[str, _Read]]
    gripper: Literal["", "stroke", "range"]


def recorded_curves(store: Store, artifact: Artifact, name: str) -> dict[str, Curves]:
    """Those of a committed artifact; see `stage_curves`."""
    # Small files: a remote store would fetch gigabytes of weights with the folder.
    gripper = held_out_facts(store, artifact).get("gripper", "")
    held_out = recorded_lines(store, artifact, VALIDATION)
    return stage_curves(name, recorded_lines(store, artifact, METRICS), held_out, gripper)


def recorded_lines(store: Store, artifact: Artifact, record: str) -> Lines:
    """The rows of a record; none where the artifact has no such file."""
    path = recorded(store, artifact, record)
    return metric_lines(path.parents[1].joinpath, record) if path else []


def held_out_facts(store: Store, artifact: Artifact) -> Mapping[str, Any]:
    """What a training's validations were of: `read`, `gripper` (`write_held_out`); {} where it does
    not say, or says anything else: the file is the store's."""
    path = recorded(store, artifact, HELD_OUT)
    try:
        return validate(_HeldOut, read_json(path), HELD_OUT).model_dump() if path else {}
    except (FoundryError, OSError, ValueError, RecursionError):
        return {}


def recorded(store: Store, artifact: Artifact, record: str) -> Path | None:
    """Where a record lies; None where there is none. A remote store is not asked for what the
    manifest does not name."""
    named = any(file.path == record for file in artifact.files)
    return store.file_path(artifact, record) if named else None


def stage_curves(name: str, lines: Lines, held_out: Lines, gripper: str = "") -> dict[str, Curves]:
    """Title of a picture → series → (step, value) of a stage's metrics.jsonl and validation.jsonl,
    thinned; empty ones left out. gripper: what its error is a share of, "" where nobody says."""
    found: dict[str, Curves] = {name: loss_series(lines)}
    for modality, series in dataset_series(lines).items():
        found[f"{name}: {modality}, by data set"] = series
    for place, series in held_out_series(held_out).items():
        modality, _, measure = place.partition(" ")
        found[f"{name}: {title(modality, measure, gripper)}, held out"] = series
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
    validations, over all datasets. The nearest of several chunks stands beside the first one, where
    it is another one: a head that samples nothing gives the same chunk each time."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in _stepped(lines):
        for name, value in row.items():
            weights, *where = name.split("/")
            if len(where) != 2:  # of one dataset, or of one step of a chunk
                continue
            modality, measure = where
            line = f"{weights}{_NEAREST}" if measure.startswith(NEAREST) else weights
            series = found.setdefault(f"{modality} {measure.removeprefix(NEAREST)}", {})
            series.setdefault(line, []).append((row["step"], value))
    return {measure: _told_apart(series) for measure, series in found.items()}


def _told_apart(
    series: dict[str, list[tuple[float, float]]],
) -> dict[str, list[tuple[float, float]]]:
    return {
        name: points
        for name, points in series.items()
        if not name.endswith(_NEAREST) or not _same(points, series[name.removesuffix(_NEAREST)])
    }


def _same(one: Points, other: Points) -> bool:
    """But for rounding: the error of the nearest chunk is added up in another order."""
    pairs = zip(one, other, strict=True)
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12) for (_, a), (_, b) in pairs)


def _thinned(rows: Lines) -> list[Mapping[str, Any]]:
    """The last one is always among them."""
    lines = _stepped(rows)
    every = max(1, len(lines) // _POINTS)
    return lines[:-1][::every] + lines[-1:]


def _stepped(rows: Lines) -> list[Mapping[str, Any]]:
    return [row for row in rows if row.get("step") is not None]
