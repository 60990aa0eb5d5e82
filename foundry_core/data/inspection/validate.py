"""`foundry data validate`: is a dataset what it says it is, all the way to the pixels?

Shards against their digests and indices, dataset.json against its schema and against the shards,
samples by decoding them. Findings are collected, not raised: one run tells all that is wrong.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foundry_core.config.validation import validate as checked
from foundry_core.data.config import WindowConfig
from foundry_core.data.images import decode_image, image_format
from foundry_core.data.inspection.contents import modality_of
from foundry_core.data.loading.config import CAPTIONS, ROBOT, TEXT
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.loading.text import read_row
from foundry_core.data.npy import read_npz
from foundry_core.data.robot.windows import anchors
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

Findings = Iterator[str]


class _Info(Config):
    """dataset.json: what it must say; it may say more."""

    model_config = ConfigDict(extra="ignore")
    version: Literal[1]


class _TextInfo(_Info):
    context: int = Field(ge=1)
    vocab_size: int = Field(ge=2)
    eos_id: int = Field(ge=0)
    sequences: int = Field(ge=1)


class _CaptionInfo(_Info):
    images: list[str] = Field(min_length=1)
    sequences: int = Field(ge=1)


class _Camera(Config):
    model_config = ConfigDict(extra="ignore")
    height: int = Field(ge=1)
    width: int = Field(ge=1)


class _RobotInfo(_Info):
    layout: Literal["episode", "sample"]
    hz: float = Field(gt=0)
    cameras: dict[str, _Camera]
    fields: dict[str, int] = Field(min_length=1)
    window: WindowConfig
    episodes: int = Field(ge=1)
    windows: int = Field(ge=1)


_SCHEMAS: dict[str, type[_Info]] = {TEXT: _TextInfo, CAPTIONS: _CaptionInfo, ROBOT: _RobotInfo}


def validate(source: str | os.PathLike, *, samples: int = 50) -> dict[str, Any]:
    """{"source", "modality", "shards", "samples", "decoded", "findings": [{"where", "problem"}]}.

    samples: how many are decoded, evenly spread; 0 decodes all. Samples of shards with a finding
    are left out. Raises FoundryError only where there is nothing to look at.
    """
    shards = CheckedShards(source, verify=False)
    findings: list[dict[str, str]] = []

    def found(where: str, problem: str) -> None:
        findings.append({"where": where, "problem": problem})

    broken = _broken_shards(shards, found)
    report = {"source": shards.source, "shards": len(shards.shards.shards), "findings": findings}
    try:
        count, modality = len(shards), modality_of(shards)
    except FoundryError as error:
        found("dataset", str(error))
        return report | {"modality": "unknown", "samples": None, "decoded": 0}
    info = _checked_info(shards, modality, count, found)
    decoded = 0
    step = 1 if samples == 0 else max(1, count // samples)
    for sample in range(0, count, step):
        if shards.shards.locate(sample)[0] in broken:
            continue
        decoded += 1
        try:
            for problem in _sample_findings(shards, sample, modality, info):
                found(shards.where(sample), problem)
        except (FoundryError, ValueError, KeyError, TypeError) as error:
            found(shards.where(sample), str(error) or repr(error))
    return report | {"modality": modality, "samples": count, "decoded": decoded}


def render_validation(report: Mapping[str, Any]) -> RenderableType:
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


def _broken_shards(shards: CheckedShards, found: Callable[[str, str], None]) -> set[int]:
    broken = set()
    for number, shard in enumerate(shards.shards.shards):
        try:
            shards.verify(number)
        except FoundryError as error:
            broken.add(number)
            found(f"shard {shard.shard}", error.message)
    return broken


def _checked_info(
    shards: CheckedShards, modality: str, count: int, found: Callable[[str, str], None]
) -> dict[str, Any]:
    """dataset.json where it is sound: what depends on one that is not is not compared."""
    info = shards.info
    if not info.get("format"):
        return {}
    try:
        checked(_SCHEMAS[modality], info, "dataset.json")
    except FoundryError as error:
        found("dataset.json", error.message)
        return {k: info[k] for k in ("layout",) if k in info}
    stated = info["episodes" if modality == ROBOT else "sequences"]
    if modality == ROBOT and info["layout"] == "sample":
        stated = info["windows"]
    if stated != count:
        found("dataset.json", f"it states {stated} samples, the shards hold {count}")
        info = {k: v for k, v in info.items() if k != "lengths"}  # of other episodes
    if modality == ROBOT:
        _check_robot(shards, info, found)
    return info


def _check_robot(
    shards: CheckedShards, info: Mapping[str, Any], found: Callable[[str, str], None]
) -> None:
    window = WindowConfig(**info["window"])
    if "lengths" in info:
        made = sum(len(anchors(length, window)) for length in info["lengths"])
        if made != info["windows"]:
            found("dataset.json", f"{info['windows']} windows; its episodes make {made}")
    try:
        shards.beside("stats.json")
        statistics = DatasetStatistics.load(shards.folder)
    except FoundryError as error:
        found("stats.json", error.message)
        return
    for name, dims in info["fields"].items():
        if name not in statistics.fields:
            found("stats.json", f"no statistics of field {name!r}")
        elif statistics[name].dims != dims:
            found("stats.json", f"{name!r} has {statistics[name].dims} dimensions, not {dims}")


def _sample_findings(
    shards: CheckedShards, sample: int, modality: str, info: Mapping[str, Any]
) -> Findings:
    members = shards.members(sample)
    if modality == TEXT:
        yield from _text_findings(members, info)
    elif modality == CAPTIONS:
        yield from _caption_findings(members, info)
    else:
        yield from _robot_findings(members, info, sample)


def _text_findings(members: Mapping[str, memoryview], info: Mapping[str, Any]) -> Findings:
    tokens = read_row(members)
    if "context" in info and tokens.shape != (info["context"] + 1,):
        yield f"{tokens.shape} tokens where dataset.json says {info['context'] + 1}"
    if "context" in info and tokens.max(initial=0) >= info["vocab_size"]:
        yield f"token {tokens.max()} in a vocabulary of {info['vocab_size']}"


def _caption_findings(members: Mapping[str, memoryview], info: Mapping[str, Any]) -> Findings:
    images = {name: data for name, data in members.items() if image_format(data)}
    if not images:
        yield f"no image among {sorted(members)}"
    for name, data in images.items():
        decode_image(data, name)
    held = {name.rpartition(".")[0] or "image" for name in images}
    for name in info.get("images", ()):
        if name not in held:
            yield f"no image {name!r}"
    if not bytes(members.get("txt", b"")).decode().strip():
        yield "no caption"


def _robot_findings(
    members: Mapping[str, memoryview], info: Mapping[str, Any], sample: int
) -> Findings:
    arrays = read_npz(members["lowdim.npz"])
    metadata = json.loads(bytes(members["metadata.json"]))
    words = json.loads(bytes(members["language_instructions.json"]))
    if not any(texts for texts in words.values()):
        yield "no instruction"
    episode = info.get("layout", "sample") == "episode"
    masks = () if episode else ("past_mask", "future_mask")
    if any(name not in arrays for name in masks):
        yield f"no {' and '.join(masks)} in lowdim.npz"
        return
    length = int(metadata["length"]) if episode else len(arrays["past_mask"])
    if episode and info.get("lengths", {sample: length})[sample] != length:
        yield f"{length} steps where dataset.json says {info['lengths'][sample]}"
    for name, dims in info.get("fields", {}).items():
        if name not in arrays:
            yield f"no field {name!r}"
        elif arrays[name].shape != (length, dims):
            yield f"{name!r} is {arrays[name].shape}, not ({length}, {dims})"
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            yield f"{name!r} holds NaN or infinity"
    yield from _image_findings(members, info, length if episode else None)


def _image_findings(
    members: Mapping[str, memoryview], info: Mapping[str, Any], length: int | None
) -> Findings:
    """Every camera at every step where the layout says so; all that is there must decode."""
    for camera, size in info.get("cameras", {}).items():
        steps = range(length) if length is not None else info.get("image_steps", ())
        names = [
            f"{camera}_{t:06d}.jpg" if length is not None else f"{camera}_t{t}.jpg" for t in steps
        ]
        missing = [name for name in names if name not in members]
        if missing:
            yield f"{len(missing)} images of {camera!r} are missing, the first is {missing[0]}"
        for name in names:
            if name in members:
                shape = decode_image(members[name], name).shape[:2]
                if shape != (size["height"], size["width"]):
                    yield f"{name} is {shape}, not {(size['height'], size['width'])}"
    if "cameras" not in info:
        for name, data in members.items():
            if image_format(data):
                decode_image(data, name)
