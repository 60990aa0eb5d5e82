"""`foundry data validate`: is a dataset what it says it is, all the way to the pixels?

Shards against their digests and indices, dataset.json against its schema and against the shards,
samples by decoding them. Findings are collected, not raised: one run shows all that is wrong.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foundry_core.config.validation import validate as checked
from foundry_core.data.images import decode_depth, decode_image, image_format
from foundry_core.data.inspection.contents import modality_of
from foundry_core.data.loading.config import CAPTIONS, ROBOT, TEXT
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.loading.text import read_row
from foundry_core.data.npy import read_npz
from foundry_core.data.robot.windows import anchors
from foundry_core.data.shards.description import (
    DESCRIPTION,
    CaptionDescription,
    Description,
    RobotDescription,
    TextDescription,
    depth_member,
    left_out,
)
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.webdataset import decode_member
from foundry_core.errors import FoundryError

Members = Mapping[str, memoryview]
# (where, problem)
AddFinding = Callable[[str, str], None]


_SCHEMAS: Mapping[str, type[Description]] = {
    TEXT: TextDescription,
    CAPTIONS: CaptionDescription,
    ROBOT: RobotDescription,
}


def validate(source: str | os.PathLike[str], *, samples: int = 50) -> dict[str, Any]:
    """Everything that is wrong with a dataset: {source, modality, shards, samples (None where that
    cannot be known), decoded: how many of them, findings: [{where, problem}]}.

    samples: how many are decoded, evenly spread; 0 decodes all. Samples of shards with a finding
    are left out. Raises FoundryError only where there is nothing to look at.
    """
    shards = CheckedShards(source, verify=False)
    findings: list[dict[str, str]] = []

    def report(where: str, problem: str) -> None:
        findings.append({"where": where, "problem": problem})

    broken = _broken_shards(shards, report)
    validation: dict[str, Any] = {
        "source": shards.source,
        "modality": "unknown",
        "shards": len(shards.shards),
        "samples": None,
        "decoded": 0,
        "findings": findings,
    }
    try:
        count, modality = len(shards), modality_of(shards)
    except FoundryError as error:
        report("dataset", str(error))
        return validation
    validation |= {"modality": modality, "samples": count}
    description = _description(shards, modality, count, report)
    for sample in range(0, count, max(1, count // samples) if samples else 1):
        if shards.locate(sample)[0] in broken:
            continue
        validation["decoded"] += 1
        try:
            for problem in _sample_findings(shards, sample, modality, description):
                report(shards.where(sample), problem)
        except (FoundryError, ValueError, KeyError, TypeError) as error:
            report(shards.where(sample), str(error) or repr(error))
    return validation


def render_validation(report: dict[str, Any]) -> RenderableType:
    """A line where all is well, else a table of the findings."""
    summary = (
        f"{report['source']}: {report['modality']}, {report['shards']} shards, "
        f"{report['samples']} samples, {report['decoded']} of them decoded"
    )
    if not report["findings"]:
        return Text(f"{summary}: all well")
    table = Table(title=f"{len(report['findings'])} findings", title_justify="left")
    table.add_column("where", overflow="fold")
    table.add_column("problem", overflow="fold")
    for finding in report["findings"]:
        table.add_row(finding["where"], finding["problem"])
    return Group(Text(summary), table)


def _broken_shards(shards: CheckedShards, report: AddFinding) -> set[int]:
    broken = set()
    for number, shard in enumerate(shards.shards):
        try:
            shards.verify(number)
        except FoundryError as error:
            broken.add(number)
            report(f"shard {shard.shard}", error.message)
    return broken


def _description(
    shards: CheckedShards, modality: str, count: int, report: AddFinding
) -> Description | None:
    """dataset.json where it is sound: what depends on one that is not is not compared."""
    if not shards.info.get("format"):
        return None
    try:
        description = checked(_SCHEMAS[modality], shards.info, DESCRIPTION)
    except FoundryError as error:
        report(DESCRIPTION, error.message)
        return None
    stated = description.samples
    if stated != count:
        report(DESCRIPTION, f"it states {stated} samples, the shards hold {count}")
        if isinstance(description, RobotDescription):  # lengths of other episodes
            description = description.model_copy(update={"lengths": None, "anchors": None})
    drawn = description.windows if isinstance(description, RobotDescription) else stated
    weighed = sum(count for count, _ in description.weights or [(drawn, 1.0)])
    if weighed != drawn:
        report(DESCRIPTION, f"weights of {weighed} samples, there are {drawn}")
    if isinstance(description, RobotDescription):
        _check_robot(shards, description, report)
    return description


def _check_robot(shards: CheckedShards, description: RobotDescription, report: AddFinding) -> None:
    if description.lengths is not None:
        made = sum(
            description.anchors
            if description.anchors is not None
            else [len(anchors(length, description.window)) for length in description.lengths]
        )
        if made != description.windows:
            report(DESCRIPTION, f"{description.windows} windows; its episodes make {made}")
    try:
        shards.beside("stats.json")
        statistics = DatasetStatistics.load(shards.folder)
    except FoundryError as error:
        report("stats.json", error.message)
        return
    for name, dims in description.fields.items():
        if name not in statistics.fields:
            report("stats.json", f"no statistics of field {name!r}")
        elif statistics[name].dims != dims:
            report("stats.json", f"{name!r} has {statistics[name].dims} dimensions, not {dims}")


def _sample_findings(
    shards: CheckedShards, sample: int, modality: str, description: Description | None
) -> Iterator[str]:
    members = shards.members(sample)
    if modality == TEXT:
        return _text_findings(members, description)
    if modality == CAPTIONS:
        return _caption_findings(members, description)
    episode = shards.info.get("layout", "sample") == "episode"
    return _robot_findings(members, description, sample, episode)


def _text_findings(members: Members, description: Description | None) -> Iterator[str]:
    tokens = read_row(members)
    if not isinstance(description, TextDescription):
        return
    if tokens.shape != (description.context + 1,):
        yield f"{tokens.shape} tokens where dataset.json says {description.context + 1}"
    if tokens.max(initial=0) >= description.vocab_size:
        yield f"token {tokens.max()} in a vocabulary of {description.vocab_size}"


def _caption_findings(members: Members, description: Description | None) -> Iterator[str]:
    images = {name: data for name, data in members.items() if image_format(data)}
    if not images:
        yield f"no image among {sorted(members)}"
    for name, data in images.items():
        decode_image(data, name)
    held = {name.rpartition(".")[0] or "image" for name in images}
    stated = description.images if isinstance(description, CaptionDescription) else ()
    for name in stated:
        if name not in held:
            yield f"no image {name!r}"
    if not bytes(members.get("txt", b"")).decode().strip():
        yield "no caption"


def _robot_findings(
    members: Members, description: Description | None, sample: int, episode: bool
) -> Iterator[str]:
    """episode: the sample is a whole one, not a window."""
    arrays = read_npz(members["lowdim.npz"])
    metadata = json.loads(bytes(members["metadata.json"]))
    words = json.loads(bytes(members["language_instructions.json"]))
    if not any(texts for texts in words.values()):
        yield "no instruction"
    masks = () if episode else ("past_mask", "future_mask")
    if any(name not in arrays for name in masks):
        yield f"no {' and '.join(masks)} in lowdim.npz"
        return
    length = int(metadata["length"]) if episode else len(arrays["past_mask"])
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"{name!r} holds NaN or infinity"
    if not isinstance(description, RobotDescription):
        for name, data in members.items():
            if image_format(data):
                decode_member(name, data)
        return
    if episode and description.lengths and description.lengths[sample] != length:
        yield f"{length} steps where dataset.json says {description.lengths[sample]}"
    if episode and description.anchors:
        made = len(anchors(length, description.window, left_out(members["metadata.json"])))
        if made != description.anchors[sample]:
            yield f"{made} anchors where dataset.json says {description.anchors[sample]}"
    if description.weights and "weights" in metadata:
        weighed = sum(count for count, _ in metadata["weights"])
        if weighed != len(anchors(length, description.window, left_out(members["metadata.json"]))):
            yield f"weights of {weighed} windows in metadata.json"
    for name, dims in description.fields.items():
        if name not in arrays:
            yield f"no field {name!r}"
        elif arrays[name].shape != (length, dims):
            yield f"{name!r} is {arrays[name].shape}, not ({length}, {dims})"
    yield from _image_findings(members, description, length if episode else None)


def _image_findings(
    members: Members, description: RobotDescription, length: int | None
) -> Iterator[str]:
    """Every camera at every step where the layout says so, its depth too; all that is there must
    decode. length: of a whole episode; None for a window."""
    for camera, size, ending in (
        *((name, size, "{}.jpg") for name, size in description.cameras.items()),
        *((name, size, depth_member("{}")) for name, size in description.depth.items()),
    ):
        steps = (
            [f"{camera}_{step:06d}" for step in range(length)]
            if length is not None
            else [f"{camera}_t{step}" for step in description.image_steps]
        )
        names = [ending.format(step) for step in steps]
        decode = decode_image if ending == "{}.jpg" else decode_depth
        missing = [name for name in names if name not in members]
        if missing:
            yield f"{len(missing)} images of {camera!r} are missing, the first is {missing[0]}"
        for name in names:
            if name in members:
                shape = decode(members[name], name).shape[:2]
                if shape != (size.height, size.width):
                    yield f"{name} is {shape}, not {(size.height, size.width)}"
