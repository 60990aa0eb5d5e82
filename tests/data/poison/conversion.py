"""Conversions in this process, and what they left behind."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from foundry_core.data.config import ImageConfig, WindowConfig
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.convert import captions, robot
from foundry_core.data.convert.robot_samples import RobotSettings
from foundry_core.data.shards.read import ShardSet
from tests.data.poison.poison_sets import Reader


@dataclass(frozen=True, kw_only=True)
class Converted:
    """samples: {key: {extension: bytes}}."""

    samples: dict[str, dict[str, bytes]]
    report: dict[str, Any]


def convert(reader: Reader, root: Path, out: Path, max_skipped: int) -> Converted:
    out.mkdir()
    source = reader.source(root)
    with patch.object(os, "fsync", _silent):
        if reader.is_robot:
            robot.convert_robot(
                source,
                _settings(reader),
                out,
                episodes_per_shard=2,
                max_skipped=max_skipped,
                workers=1,
                progress=_silent,
            )
        else:
            captions.convert_captions(
                source,
                out,
                image=ImageConfig(),
                samples_per_shard=4,
                max_skipped=max_skipped,
                workers=1,
                progress=_silent,
            )
    return converted(out)


def converted(out: Path) -> Converted:
    shards = ShardSet(out)
    for number in range(len(shards.shards)):
        shards.verify(number)
    samples = {
        shards.key(sample): {name: bytes(data) for name, data in shards.members(sample).items()}
        for sample in range(len(shards))
    }
    assert len(samples) == len(shards)
    return Converted(samples=samples, report=json.loads((out / "report.json").read_text()))


def _settings(reader: Reader) -> RobotSettings:
    return RobotSettings(
        contract=DataContract().converted((reader.camera,), reader.fields, ImageConfig(), {}),
        groups=reader.groups,
        window=WindowConfig(past=0, future=3, max_padding_right=3),
        image_steps=(0,),
        image=ImageConfig(),
        layout="episode",
        keep_failures=False,
    )


def _silent(*_: Any, **__: Any) -> None:
    """Progress nobody looks at."""


def names_item(text: str, number: int) -> bool:
    """Whether a key, or a line about it, is of an item of that number."""
    marks = rf"ep[_.]0*{number}|episode_{number:06d}|-{number:05d}-of|{number:08d}"
    return bool(re.search(rf"({marks}|scenes\.jsonl:{number + 1})(?![0-9])", text))


def snapshot(folder: Path) -> dict[str, str]:
    """What lies below a folder, links not followed."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "no file"
        for path in folder.rglob("*")
    }
