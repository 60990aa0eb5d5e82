"""`foundry data convert` of a set that holds every poison of its format at once: exit code 0 where
the recipe tolerates them, and the report counts each; 2, one line and no output where it does not.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from foundry_core.config.overrides import override_text
from tests.data.poison.conversion import converted, names_item
from tests.data.poison.poison_sets import READERS, Reader, good
from tests.data.poison.poisons import TABLE, Poison

# One format stands for the others in everyday runs.
PROCESSES = pytest.mark.slow("a process of seconds for each format")
FORMATS = [
    pytest.param(name, marks=[] if name == "demonstrations" else [PROCESSES]) for name in READERS
]


def poisons(format_: str) -> dict[int, Poison]:
    """By the number of the item that each is done to. What happens to a file between listing and
    reading cannot be staged from outside of the process."""
    cells = [row[format_] for row in TABLE.values()]
    acting = [cell for cell in cells if isinstance(cell, Poison) and cell.after is None]
    return dict(enumerate(acting, start=1))


def write(reader: Reader, root: Path, found: dict[int, Poison]) -> None:
    """Good items before and behind the bad ones."""
    items = [good(number) for number in range(len(found) + 2)]
    for number, poison in found.items():
        if poison.change is not None:
            items[number] = poison.change(items[number])
    reader.write(root, items)
    file = reader.file.replace("-of-00003", f"-of-{len(items):05d}")
    for number, poison in found.items():
        if poison.damage is not None:
            poison.damage(root, replace(reader, file=file, victim=number))


def convert(reader: Reader, raw: Path, out: Path, max_skipped: int) -> tuple[int, str]:
    """(exit code, what was written to stderr)"""
    source = reader.source(raw)
    recipe: dict[str, Any] = {"max_skipped": max_skipped}
    options = source.model_dump(mode="json", exclude_defaults=True, exclude={"path"})
    recipe |= {f"source.{name}": value for name, value in options.items()}
    if reader.is_robot:
        recipe |= {"cameras": [reader.camera], "fields": list(reader.fields)}
        recipe |= {"window.past": 0, "window.future": 3, "window.max_padding_right": 3}
        recipe["episodes_per_shard"] = 2
    command = [sys.executable, "-m", "flows.cli", "data", "convert", "--from", source.format]
    command += [str(raw), str(out)]
    for name, value in recipe.items():
        command += ["-o", override_text(name, value)]
    environment = os.environ | {"FOUNDRY_HOME": str(out.parent / "home"), "COLUMNS": "4000"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("format_", FORMATS)
def test_every_bad_item_is_a_counted_skip_of_the_command(tmp_path, format_):
    reader, found = READERS[format_], poisons(format_)
    raw, out = tmp_path / "raw", tmp_path / "out"
    write(reader, raw, found)
    lost = sum(poison.lost for poison in found.values())
    code, said = convert(reader, raw, out, lost)
    assert code == 0, said
    made = converted(out)
    skipped = [f"{one['id']}: {one['reason']}" for one in made.report["skipped"]]
    assert len(skipped) == lost
    assert made.report["seen"] == made.report["converted"] + lost
    assert made.report["converted"] == len(made.samples)
    for number, poison in found.items():
        lines = [line for line in skipped if names_item(line, number)]
        assert len(lines) == poison.lost, (number, poison, skipped)
        assert all(line.isprintable() for line in lines)
        if not poison.lost:
            assert any(names_item(key, number) for key in made.samples), (number, poison)
    for number in (0, len(found) + 1):
        assert any(names_item(key, number) for key in made.samples)

    code, said = convert(reader, raw, tmp_path / "refused", lost - 1)
    (line,) = [one for one in said.splitlines() if "max_skipped" in one]
    assert code == 2 and f"{lost} " in line and f"max_skipped = {lost - 1}" in line
    assert not (tmp_path / "refused").exists()
