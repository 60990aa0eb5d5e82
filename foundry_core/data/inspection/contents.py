"""`foundry data inspect`: what a folder of shards holds, of this project or anybody's."""

import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from foundry_core.data.images import image_format
from foundry_core.data.loading.config import CAPTIONS, ROBOT, TEXT
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.shards.write import ShardInfo
from foundry_core.data.webdataset import decode_member
from foundry_core.errors import FoundryError
from foundry_core.files import read_json

_FORMATS = {"foundry-text": TEXT, "foundry-captions": CAPTIONS, "foundry-robot": ROBOT}
_SHOWN_MEMBERS = 40


def modality_of(shards: CheckedShards) -> str:
    """By dataset.json, or by the first sample's members where there is none (published shards)."""
    stated = shards.info.get("format")
    if stated is not None:
        if stated not in _FORMATS:
            raise FoundryError(
                f"{shards.source!r} states the format {stated!r}",
                f"formats that can be read: {', '.join(_FORMATS)}",
            )
        return _FORMATS[stated]
    if not len(shards):
        raise FoundryError(f"{shards.source!r} holds no samples", "convert it again")
    extensions = set(shards.members(0))
    for mark, modality in (
        ("lowdim.npz", ROBOT),
        ("tokens.npy", TEXT),
        ("json.gz", TEXT),
        ("txt", CAPTIONS),
    ):
        if mark in extensions:
            return modality
    raise FoundryError(
        f"samples of {shards.source!r} hold {sorted(extensions)[:8]}: neither text, captions nor "
        "robot data",
        "convert the folder first (foundry data convert)",
    )


def contents(source: str | os.PathLike[str], sample: int = 0) -> dict[str, Any]:
    """What a folder or an address of shards holds, and one of its samples.

    dataset: dataset.json without per-episode lists. digests: whether the manifest states them.
    report: what the conversion skipped, counted; None where it left no report. sample.members:
    {name: {bytes, holds}}, holds being one line on what it decodes to.
    """
    shards = CheckedShards(source)
    count = len(shards)
    if not 0 <= sample < count:
        raise FoundryError(f"{shards.source!r} has no sample {sample}", f"it has {count}")
    rows = shards.shards
    return {
        "source": shards.source,
        "modality": modality_of(shards),
        "dataset": {k: v for k, v in shards.info.items() if not _per_episode(v)},
        "shards": len(rows),
        "samples": count,
        "bytes": sum(row.bytes or shards.path(n).stat().st_size for n, row in _held(shards)),
        "digests": all(row.sha256 for row in rows),
        "report": _report(shards),
        "sample": {
            "number": sample,
            "key": shards.key(sample),
            "members": {
                name: _member(name, data) for name, data in sorted(shards.members(sample).items())
            },
        },
    }


def render_contents(contents: dict[str, Any]) -> RenderableType:
    """Two tables: the dataset, and the members of the sample."""
    head = Table(title=contents["source"], title_justify="left", show_header=False)
    head.add_row("modality", contents["modality"])
    size = f"{contents['bytes'] / 1e6:.1f} MB"
    head.add_row("samples", f"{contents['samples']} in {contents['shards']} shards, {size}")
    head.add_row("digests", "in the manifest" if contents["digests"] else "none: foreign shards")
    for name, value in contents["dataset"].items():
        head.add_row(name, json.dumps(value) if isinstance(value, (dict, list)) else str(value))
    for name, value in (contents["report"] or {}).items():
        head.add_row(f"conversion: {name}", str(value))
    sample = contents["sample"]
    table = Table(title=f"sample {sample['number']}: {sample['key']}", title_justify="left")
    for heading in ("member", "bytes", "holds"):
        table.add_column(heading, justify="right" if heading == "bytes" else "left")
    for name, member in list(sample["members"].items())[:_SHOWN_MEMBERS]:
        table.add_row(name, str(member["bytes"]), member["holds"])
    more = len(sample["members"]) - _SHOWN_MEMBERS
    return Group(head, table, Text(f"and {more} more members" if more > 0 else ""))


def _held(shards: CheckedShards) -> Iterable[tuple[int, ShardInfo]]:
    """Shards whose size can be known: stated, or lying here."""
    for number, row in enumerate(shards.shards):
        if row.bytes is not None or shards.path(number).exists():
            yield number, row


def _per_episode(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 20


def _report(shards: CheckedShards) -> dict[str, Any] | None:
    path = shards.beside("report.json")
    if path is None:
        return None
    report = read_json(path)
    skipped = report.get("skipped", [])
    return {k: v for k, v in report.items() if isinstance(v, (int, str)) or k == "left_out"} | {
        "skipped": len(skipped) if isinstance(skipped, list) else skipped
    }


def _member(name: str, data: memoryview) -> dict[str, Any]:
    """Size, and one line on what it decodes to; what does not decode says so."""
    try:
        holds = _holds(name, data)
    except FoundryError as error:
        holds = f"unreadable: {error}"
    return {"bytes": len(data), "holds": holds}


def _holds(name: str, data: memoryview) -> str:
    if name.endswith((".json", ".txt")) or name in ("json", "txt"):
        text = bytes(data).decode(errors="replace")
        return text if len(text) <= 200 else text[:200] + "..."
    value = decode_member(name, data)
    if image_format(data):
        return f"image {value.shape[0]} x {value.shape[1]}"
    if isinstance(value, np.ndarray):
        return _array(value)
    if name.endswith("npz"):
        return "; ".join(f"{k} {_array(v)}" for k, v in sorted(value.items()))
    return ""


def _array(values: np.ndarray) -> str:
    return f"{values.dtype}{list(values.shape)}"
