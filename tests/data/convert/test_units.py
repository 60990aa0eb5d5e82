"""Units of work: kept across kills and between sources, believed only with their digests."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from foundry_core.data.convert import units
from foundry_core.data.convert.units import Unit, UnitStore, unit_cache
from foundry_core.data.images import encode_jpeg
from foundry_core.data.sources.captions.img2dataset import ImageCaptionTars
from foundry_core.data.sources.robot.demonstrations import Demonstrations
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from tests.data.convert.test_robot import convert, write_episode

HERE = Path(__file__).parents[3]


def write(work: str, folder: Path) -> None:
    """A unit's work: notes that it was done."""
    (folder / "result").write_text(work.upper())
    with Path(os.environ["UNITS_MADE"]).open("a") as stream:
        stream.write(f"{work}\n")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """What was worked on, and not reused, since the last call."""
    log = tmp_path / "made"
    monkeypatch.setenv("UNITS_MADE", str(log))
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    def call() -> list[str]:
        lines = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    return call


def run(scratch, works, state="", store=None):
    listed = (Unit(name=w, work=w, state=lambda w=w: [w, state]) for w in works)
    with UnitStore(scratch, workers=1) as opened:
        results = opened.results(write, None, listed)
        return [(one.folder / "result").read_text() for one in results]


def test_another_conversion_takes_what_has_not_changed(made, tmp_path):
    assert run(tmp_path / "a", ["x", "y"]) == ["X", "Y"]
    assert made() == ["x", "y"]
    assert run(tmp_path / "b", ["x", "z"]) == ["X", "Z"]
    assert made() == ["z"]
    run(tmp_path / "c", ["x"], state="another")
    assert made() == ["x"]


def test_a_unit_is_believed_only_with_its_digest(made, tmp_path):
    run(tmp_path / "a", ["x", "y"])
    made()
    for result in (tmp_path / "home/cache/units").glob("*/result"):
        if result.read_text() == "X":
            result.write_text("?")
    assert run(tmp_path / "b", ["x", "y"]) == ["X", "Y"]
    assert made() == ["x"]
    assert run(tmp_path / "c", ["x", "y"]) == ["X", "Y"]
    assert made() == []


def test_an_interrupted_conversion_goes_on_without_a_home(made, tmp_path):
    (tmp_path / "home").rmdir()

    def interrupted():
        yield Unit(name="x", work="x", state=lambda: "x")
        yield Unit(name="y", work="y", state=lambda: "y")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), UnitStore(tmp_path / "s", workers=1) as store:
        list(store.results(write, None, interrupted()))
    assert made() == ["x", "y"]
    listed = [Unit(name=w, work=w, state=lambda w=w: w) for w in "xyz"]
    with UnitStore(tmp_path / "s", workers=1) as store:
        assert [one.reused for one in store.results(write, None, listed)] == [True, True, False]
    assert made() == ["z"]
    assert not (tmp_path / "home").exists()
    assert list((tmp_path / "s").iterdir()) == []


def test_bytes_that_change_under_the_work_are_refused_and_not_kept(made, tmp_path):
    states = iter(["before", "after", "before", "before"])
    unit = Unit(name="the file", work="x", state=lambda: next(states))
    with (
        pytest.raises(FoundryError, match="the file changed"),
        UnitStore(tmp_path / "s", workers=1) as store,
    ):
        list(store.results(write, None, [unit]))
    assert made() == ["x"]
    with UnitStore(tmp_path / "s", workers=1) as store:
        list(store.results(write, None, [unit]))
    assert made() == ["x"]  # again: what was made of other bytes is not there


def test_code_that_changes_meanwhile_takes_its_units_back(made, tmp_path, monkeypatch):
    codes = iter(["old", "new"])
    monkeypatch.setattr(units._Code, "_now", lambda self, index: next(codes))
    monkeypatch.setattr(units.CodeIndex, "stands", lambda self: False)
    with pytest.raises(FoundryError, match="the code changed"):
        run(tmp_path / "a", ["x"])
    made()
    monkeypatch.setattr(units._Code, "_now", lambda self, index: "old")
    run(tmp_path / "a", ["x"])
    assert made() == ["x"]


def test_the_cache_is_bounded_by_what_only_it_holds(made, tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_CACHE_GB", "1e-9")
    with UnitStore(tmp_path / "a", workers=1) as store:
        listed = [Unit(name=w, work=w, state=lambda w=w: w) for w in "xy"]
        for one, name in zip(store.results(write, None, listed), "xy", strict=True):
            if name == "x":
                units.place_file(one.folder / "result", tmp_path / "dataset")
                (one.folder / "unit.json").rename(tmp_path / "kept.json")
                os.link(tmp_path / "kept.json", one.folder / "unit.json")
    cache = tmp_path / "home/cache/units"
    assert [path.read_text() for path in cache.glob("*/result")] == ["X"]
    (tmp_path / "dataset").unlink()
    (tmp_path / "kept.json").unlink()
    unit_cache().make_room()
    assert list(cache.glob("*/result")) == []


def test_a_worker_without_the_drivers_disk_hands_its_files_over(made, tmp_path, monkeypatch):
    monkeypatch.setattr(units._Place, "is_here", lambda self: False)
    assert run(tmp_path / "a", ["x"]) == ["X"]
    assert run(tmp_path / "b", ["x", "y"]) == ["X", "Y"]
    assert made() == ["x", "y"]
    unit = Unit(name="x", work="q", state=lambda: "q", needs="/only/here.tar")
    with (
        pytest.raises(FoundryError, match=r"does not see '/only/here.tar'"),
        UnitStore(tmp_path / "c", workers=1) as store,
    ):
        list(store.results(write, None, [unit]))


def test_one_changed_episode_is_one_shard_to_make(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for number in range(7):
        write_episode(tmp_path / "demos", number)
    (tmp_path / "demos/demos.json").write_text("{}")
    seen: list[str] = []
    shard = units._filled
    monkeypatch.setattr(units, "_filled", lambda task: (seen.append(task.key), shard(task))[1])
    source = Demonstrations(path=str(tmp_path / "demos"))
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        convert(source, tmp_path / name, scratch=tmp_path / f"{name} scratch")
    assert len(seen) == 4
    write_episode(tmp_path / "demos", 4, length=8)
    (tmp_path / "changed").mkdir()
    convert(source, tmp_path / "changed", scratch=tmp_path / "scratch")
    assert len(seen) == 5
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "other home"))
    (tmp_path / "afresh").mkdir()
    convert(source, tmp_path / "afresh", scratch=tmp_path / "other scratch")
    assert len(seen) == 9
    assert files(tmp_path / "changed") == files(tmp_path / "afresh")


def test_equal_files_of_one_name_in_two_folders_are_two_pieces(tmp_path):
    captions(tmp_path)
    for folder in "ab":
        (tmp_path / "both" / folder).mkdir(parents=True)
        shutil.copy(tmp_path / "tars/00000.tar", tmp_path / "both" / folder)
    source = ImageCaptionTars(path=str(tmp_path / "both"))
    state = units.SourceState(source)
    first, second = (state([ref]) for ref in source.refs())
    assert first != second


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def demonstrations(root: Path) -> Path:
    for number in range(12):
        write_episode(root / "demos", number)
    (root / "demos/demos.json").write_text("{}")
    return root / "demos"


def texts(root: Path) -> Path:
    Tokenizer.train(["some text"], 258).save(root / "tokenizer")
    (root / "texts").mkdir()
    for number in range(12):
        lines = [json.dumps({"text": f"story {number} {line} " * 5}) for line in range(20)]
        (root / f"texts/{number:02d}.jsonl").write_text("\n".join(lines))
    return root / "texts"


def captions(root: Path) -> Path:
    (root / "tars").mkdir()
    for number in range(12):
        with tarfile.open(root / f"tars/{number:05d}.tar", "w") as tar:
            for key in range(5):
                image = np.full((9, 9, 3), 20 * number + key, np.uint8)
                for name, data in (("jpg", encode_jpeg(image, 90)), ("txt", b"a picture")):
                    info = tarfile.TarInfo(f"{key:04d}.{name}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return root / "tars"


KINDS = {"demonstrations": demonstrations, "jsonl": texts, "img2dataset": captions}


def started(*arguments: object, home: Path) -> subprocess.Popen:
    """A conversion in a process group of its own."""
    environment = os.environ | {"FOUNDRY_HOME": str(home), "PYTHONPATH": str(HERE)}
    command = [sys.executable, "-m", "tests.data.convert.conversions", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def killed_after(steps: int, *arguments: object, home: Path) -> int:
    """kill -9 of the whole group after so many steps; how many it did."""
    process = started(*arguments, home=home)
    done = 0
    for _ in process.stdout:
        done += 1
        if done == steps:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return done


@pytest.mark.parametrize("format_", KINDS)
def test_killed_and_gone_on_with_is_as_if_nothing_had_been(tmp_path, monkeypatch, format_):
    source = KINDS[format_](tmp_path)
    out = tmp_path / "out"
    home = tmp_path / "home"
    home.mkdir()
    assert killed_after(5, format_, source, out, 1, home=home) >= 5
    assert not out.exists()
    kept = list((tmp_path / ".out.partial/scratch/units").glob("*/unit.json"))
    assert len(kept) >= 4
    before = {path: path.stat().st_ino for path in kept}
    assert killed_after(10**6, format_, source, out, 1, home=home)
    cached = {path.parent.name: path.stat().st_ino for path in home.glob("cache/units/*/unit.json")}
    assert {path.parent.name: number for path, number in before.items()}.items() <= cached.items()
    assert not (tmp_path / ".out.partial").exists()
    other = tmp_path / "other"
    other.mkdir()
    killed_after(10**6, format_, source, tmp_path / "whole", 1, home=other)
    assert files(out) == files(tmp_path / "whole")
    assert "manifest.jsonl" in files(out)


@pytest.mark.slow("five conversions, two of them killed")
@pytest.mark.parametrize("format_", KINDS)
def test_any_number_of_workers_and_kills_gives_the_same_bytes(tmp_path, format_):
    source = KINDS[format_](tmp_path)
    found = []
    for workers in (1, 2, 4):
        home, out = tmp_path / f"home{workers}", tmp_path / f"out{workers}"
        home.mkdir()
        if workers > 1:
            killed_after(3, format_, source, out, workers, home=home)
        killed_after(10**6, format_, source, out, workers, home=home)
        found.append(files(out))
    assert found[0] == found[1] == found[2]
