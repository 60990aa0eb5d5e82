"""`foundry data check`: do these statistics normalise these shards, and what do they cut off?"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.inspection.contents import modality_of
from foundry_core.data.inspection.recompute import dataset_statistics
from foundry_core.data.inspection.tables import field_table
from foundry_core.data.loading.config import ROBOT
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.robot.coverage import FieldCoverage, coverage, coverage_notes
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.shards.description import DESCRIPTION, field_meanings
from foundry_core.data.statistics.dataset import LEAVES_SUFFIX, DatasetStatistics
from foundry_core.errors import FoundryError
from foundry_core.files import read_json

_DEAD = (
    "dead: all values together span less than a tenth of the range that becomes -1 to 1, which is "
    "never less than the field's floor: a policy hardly sees it move. It rests, or its unit is "
    "wrong (docs/data.md, Normalisation)"
)
_STATS = ("stats.json", f"stats{LEAVES_SUFFIX}")


def check(
    source: str | os.PathLike[str],
    statistics: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Shards read in full against statistics, by default those beside them, normalised as a recipe
    that says nothing does: {source, statistics, without: fields that the statistics lack,
    normalization: {field: FieldCoverage}, notes: a line per dimension that is clipped a lot}.

    FoundryError for shards of other data than robots', and, unless forced, for statistics that
    this dataset is no part of.
    """
    shards = CheckedShards(source)
    if modality_of(shards) != ROBOT:
        raise FoundryError(f"{shards.source!r} holds no robot data", "only these have statistics")
    beside = shards.beside(*_STATS)
    path = Path(statistics) if statistics is not None else beside
    if path is None:
        raise FoundryError(f"no stats.json beside {shards.source!r}", "give one with --stats")
    used, data = DatasetStatistics.load(path), dataset_statistics(source)
    if statistics is not None and not force:
        known = [data.datasets] + ([DatasetStatistics.load(beside).datasets] if beside else [])
        if not any(set(ids) <= set(used.datasets) for ids in known):
            raise FoundryError(
                f"{str(path)!r} holds statistics of {_made_of(path, used)}; {shards.source!r} is "
                f"dataset {', '.join(known[-1])}",
                "merge this dataset's stats.json into them, or pass --force to compare anyway",
            )
    names = [name for name in data.fields if name in used.fields]
    normalizer = Normalizer.from_statistics(used, names, meanings=field_meanings(shards.info))
    found = coverage(data, normalizer)
    return {
        "source": shards.source,
        "statistics": str(path),
        "without": sorted(set(data.fields) - set(names)),
        "normalization": {name: asdict(field) for name, field in found.items()},
        "notes": coverage_notes(found),
    }


def render_check(found: dict[str, Any]) -> RenderableType:
    """A table of the dimensions that stand out, and the notes."""
    lines = [Text(f"{found['source']} by {found['statistics']}")]
    lines += [Text(f"no statistics of {name}") for name in found["without"]]
    notes = [Text(note) for note in found["notes"]]
    return Group(*lines, coverage_table(found["normalization"]), *notes)


def coverage_table(fields: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Of FieldCoverage as dicts: a row per dimension that is clipped, still, or bounded by its
    extremes, and how many there are besides."""
    parts: list[RenderableType] = [Text("Normalisation", style="italic")]
    plain = 0
    legend: list[Text] = []
    for name, field in fields.items():
        rows = []
        for dim, share in enumerate(field["clipped"]):
            still = "constant" if field["constant"][dim] else "dead" if field["dead"][dim] else ""
            legend += [Text(_DEAD)] if still == "dead" and not legend else []
            bounds = "scaled by its range" if field["by_range"][dim] and not still else ""
            if share or still or bounds:
                rows.append((str(dim), f"{share:.3%}", still or bounds))
            else:
                plain += 1
        if rows:
            parts += field_table(name, ("dim", "outside the clip", ""), rows)
    return Group(*parts, *legend, Text(f"{plain} other dimensions: nothing clipped"))


def merged_coverage(
    merged: DatasetStatistics, places: Iterable[str | os.PathLike[str]]
) -> dict[str, FieldCoverage]:
    """Of merged statistics, normalised as a recipe that says nothing does; places: of the parts,
    beside which a dataset.json may say what the fields mean."""
    meanings: dict[str, FieldContract] = {}
    for place in map(Path, places):
        path = (place if place.is_dir() else place.parent) / DESCRIPTION
        if path.is_file():
            meanings.update(field_meanings(read_json(path)))
    return coverage(merged, Normalizer.from_statistics(merged, merged.fields, meanings=meanings))


def _made_of(path: Path, statistics: DatasetStatistics) -> str:
    """Labels where a merge's report lies beside them, else ids."""
    report = (path if path.is_dir() else path.parent) / "report.json"
    parts = read_json(report).get("parts", {}) if report.is_file() else {}
    of = {i: label for label, part in parts.items() for i in part.get("datasets", ())}
    return ", ".join(f"{of[i]} ({i})" if i in of else i for i in statistics.datasets)
