"""One bad recording is one counted skip that names file, field and step, whatever is wrong with it:
every poison on every format. The others are what they are without it."""

import shutil
from pathlib import Path
from unittest.mock import patch

import pytest

from foundry_core.errors import FoundryError
from tests.data.poison.conversion import Converted, convert, names_item, snapshot
from tests.data.poison.poison_sets import READERS, VICTIM, Reader, good
from tests.data.poison.poisons import TABLE, Poison

# Bags' writers take most of a second per set; MCAP files stand for them in everyday runs, and films
# for the other LeRobot sets of v3.0.
SLOW = ("bag1", "bag2", "lerobot_v30")
CELLS = [
    pytest.param(
        poison,
        format_,
        id=f"{poison}-{format_}",
        marks=[pytest.mark.slow("writes bags and videos for each")] if format_ in SLOW else [],
    )
    for poison, row in TABLE.items()
    for format_, cell in row.items()
    if isinstance(cell, Poison)
]


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """{format: (its folder, what it converts to)}, made when it is asked for."""
    made: dict[str, tuple[Path, Converted]] = {}

    def of(name: str) -> tuple[Path, Converted]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            READERS[name].write(folder / "raw", [good(number) for number in range(3)])
            found = convert(READERS[name], folder / "raw", folder / "out", 0)
            made[name] = (folder / "raw", found)
        return made[name]

    return of


def test_every_poison_says_what_it_means_for_every_format():
    for poison, row in TABLE.items():
        assert sorted(row) == sorted(READERS), poison
        assert all(isinstance(cell, Poison) or cell for cell in row.values())
        assert any(isinstance(cell, Poison) for cell in row.values())


def poisoned(reader: Reader, poison: Poison, clean_raw: Path, raw: Path) -> None:
    if poison.change is None:
        shutil.copytree(clean_raw, raw)
    else:
        items = [good(number) for number in range(3)]
        items[VICTIM] = poison.change(items[VICTIM])
        reader.write(raw, items)
    if poison.damage is not None:
        poison.damage(raw, reader)


def listed_before(reader: Reader, poison: Poison, raw: Path):
    """Lets the source list its pieces before the damage is done."""
    kind = type(reader.source(raw))
    name = "episodes" if reader.is_robot else "refs"
    real = getattr(kind, name)

    path = reader.path(raw)
    held = path.read_bytes() if poison.after is not None else b""

    def listing(self):
        if poison.after is not None:
            path.write_bytes(held)
        refs = real(self)
        if poison.after is not None:
            poison.after(raw, reader)
        return refs

    return patch.object(kind, name, listing)


@pytest.mark.parametrize(("name", "format_"), CELLS)
def test_one_bad_item_is_one_counted_skip(clean, tmp_path, name, format_):
    poison, reader = TABLE[name][format_], READERS[format_]
    assert isinstance(poison, Poison)
    clean_raw, wanted = clean(format_)
    raw, outside = tmp_path / "raw", tmp_path / "outside"
    poisoned(reader, poison, clean_raw, raw)
    outside.mkdir()
    before = snapshot(raw) if poison.after is None else {}
    with listed_before(reader, poison, raw):
        if poison.lost:
            with pytest.raises(FoundryError) as refused:
                convert(reader, raw, tmp_path / "refused", 0)
            check_line(str(refused.value), poison, reader)
            assert "max_skipped = 0" in str(refused.value)
        found = convert(reader, raw, tmp_path / "out", 3)
    skipped = found.report["skipped"]
    assert len(skipped) == poison.lost, skipped
    for one in skipped:
        check_line(f"{one['id']}: {one['reason']}", poison, reader)
    assert found.report["seen"] == found.report["converted"] + len(skipped)
    check_rest(found, wanted, poison)
    if poison.after is None:
        assert snapshot(raw) == before
    left = {path.name for path in tmp_path.iterdir()} - {"elsewhere"}
    assert left <= {"raw", "out", "refused", "outside"} and not any(outside.iterdir())


def check_line(line: str, poison: Poison, reader: Reader) -> None:
    assert line.isprintable()
    marks = {"state": reader.state, "action": reader.action, "camera": reader.camera}
    if not reader.is_robot:
        marks["camera"] = ""
    for part in poison.says:
        if part.startswith("step ") and not reader.is_robot:
            continue
        assert part.format(**marks) in line, line
    assert names_item(line, VICTIM), line


def check_rest(found: Converted, wanted: Converted, poison: Poison) -> None:
    """All items but the bad one are there, and are what they are in a clean conversion."""
    others = {key: members for key, members in found.samples.items() if key in wanted.samples}
    if poison.same:
        assert others == {key: wanted.samples[key] for key in others}
    good_keys = [key for key in wanted.samples if not _is_victim(key)]
    assert good_keys and all(found.samples[key] == wanted.samples[key] for key in good_keys)
    if not found.report["skipped"]:
        assert len(found.samples) == len(wanted.samples)


def _is_victim(key: str) -> bool:
    return names_item(key, VICTIM)
