"""Disks that are full or read-only, files that were harmed, clocks that go back: named, and mended
or refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from flows.cli import main
from foundry_core.errors import FoundryError
from foundry_core.home import home_dir
from foundry_core.lineage import events as events_module
from foundry_core.lineage import queries
from foundry_core.lineage.connection import attach
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index
from foundry_core.store import manifest
from foundry_core.store.disk import is_full
from foundry_core.store.open import open_store
from tests.faults import checks
from tests.runs import prepared, run
from tests.support import WORDS, install_kinds, stage_alone

STAGES = ("first", "second", "model", "total")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    return tmp_path / "home"


class Disk:
    """A small tmpfs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mount("size=4m")

    def mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)]
        subprocess.run(command, check=True, capture_output=True)

    def remount(self, options: str) -> None:
        self.mount(f"remount,{options}")

    def fill(self) -> Path:
        """A file that takes all the room there is."""
        path = self.folder / "filler"
        with pytest.raises(OSError, match="No space left"), path.open("wb", buffering=0) as stream:
            while True:
                stream.write(b"x" * 4096)
        return path


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        small = Disk(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a tmpfs cannot be mounted here: {error}")
    yield small
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def store_on_disk(disk, monkeypatch):
    monkeypatch.setenv("FOUNDRY_STORE", str(disk.folder / "store"))
    return disk.folder / "store"


def whole(store, home, tmp_path):
    """Nothing half visible, and lineage knows what is there."""
    assert checks.LocalView(store).damage() == {}
    assert checks.lineage_differences(home, str(store / "events"), tmp_path) == []
    keys = {key for _, key in checks.LocalView(store).committed()}
    assert checks.unlisted(home / "lineage.duckdb", keys) == []


BIG = "first.lines=2000000"


def test_a_stage_that_fills_the_disk_names_it_and_runs_once_there_is_room(
    disk, store_on_disk, home, tmp_path
):
    with pytest.raises(Exception, match=rf"{disk.folder}.* is full: \d\.\d of 4\.2 MB free"):
        run(BIG)
    assert checks.LocalView(store_on_disk).committed() == {}
    (reason,) = prepared(BIG).plan.stages["first"].reasons
    assert reason.category == "FAILED"
    assert "is full" in reason.path
    disk.remount("size=64m")
    assert set(run(BIG)[0].values()) == {"run"}
    whole(store_on_disk, home, tmp_path)
    with attach(home / "lineage.duckdb") as connection:
        rows = connection.execute("select stage, state from attempt order by all").fetchall()
    assert ("first", "failed") in rows
    assert [state for stage, state in rows if stage != "first"] == ["committed"] * 3


def test_a_disk_that_fills_up_between_two_stages(disk, store_on_disk, home, tmp_path):
    from flows.runs.engine import PipelineRun

    under_way = PipelineRun(prepared())
    under_way.start()
    under_way.stage("first")
    filler = disk.fill()
    with pytest.raises(FoundryError, match="is full"):
        under_way.stage("model")
    with pytest.raises(FoundryError, match="is full"):
        under_way.finish("failed")
    with pytest.raises(FoundryError, match="is full"):
        run()
    assert checks.LocalView(store_on_disk).damage() == {}
    filler.unlink()
    actions, _ = run()
    assert actions == {"first": "reuse", "second": "run", "model": "run", "total": "run"}
    whole(store_on_disk, home, tmp_path)
    assert checks.unfinished_attempts(home / "lineage.duckdb", {s.key for s in _specs()}) == []


def _specs():
    return prepared().specs.values()


def test_no_room_for_the_index_fails_no_run_and_heals(disk, home, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("FOUNDRY_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("FOUNDRY_HOME", str(disk.folder / "home"))
    from flows.console import Console
    from flows.runs.engine import PipelineRun

    under_way = PipelineRun(prepared(), observe=Console(quiet=True).observe)
    under_way.start()
    for name in under_way.affected():
        under_way.stage(name)
    filler = disk.fill()
    assert under_way.finish("succeeded")["status"] == "succeeded"
    assert "the lineage index" in capsys.readouterr().err
    filler.unlink()
    disk.remount("size=64m")
    assert set(run()[0].values()) == {"reuse"}
    whole(tmp_path / "store", home_dir(), tmp_path)


def cli(*arguments):
    command = [sys.executable, "-m", "flows.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_read_only_store_can_be_planned_and_a_run_says_what_is_wrong(disk, store_on_disk):
    disk.remount("size=64m")
    run()
    disk.remount("ro")
    planned = cli("plan", str(WORDS), "--json")
    assert planned.returncode == 0, planned.stderr
    assert {row["action"] for row in json.loads(planned.stdout)["stages"]} == {"reuse"}
    refused = cli("run", str(WORDS), "-o", "first.word=uno")
    assert refused.returncode == 2
    assert str(store_on_disk) in refused.stderr
    assert "read-only" in refused.stderr
    assert "Traceback" not in refused.stderr
    disk.remount("rw")
    assert run("first.word=uno")[0]["first"] == "run"


def test_a_report_on_a_read_only_home_is_one_line(disk, monkeypatch, capsys):
    monkeypatch.setenv("FOUNDRY_HOME", str(disk.folder / "home"))
    disk.remount("size=64m")
    _, done = run()
    disk.remount("ro")
    capsys.readouterr()
    assert main(["report", done.run_id]) == 2
    said = capsys.readouterr().err
    assert "cannot be written: the place is read-only" in said
    assert said.count("\n") == 1


def test_a_read_only_store_is_named_by_its_upkeep(disk, store_on_disk, tmp_path, capsys):
    _, done = run()
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "text.txt").write_text("one")
    key = done.artifact("total").key
    assert main(["lineage", "tag", key, "a@1"]) == 0
    disk.remount("ro")
    capsys.readouterr()
    for arguments in (
        ["tag", key, "b@1"],
        ["untag", "a@1"],
        ["pin", done.run_id],
        ["import", "emit", str(tmp_path / "bytes")],
        ["gc", "--apply", "--keep-runs", "0", "--grace-hours", "0"],
    ):
        assert main(["lineage", *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert "cannot be written: the place is read-only" in said
        assert said.count("\n") == 1
    assert main(["lineage", "tag"]) == 0
    assert main(["lineage", "gc"]) == 0
    disk.remount("rw")
    assert len(done.prepared.store.artifacts()) == 4


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _flip_in_secret(path):
    """As a failing disk or a careful tool: size and modification time as before."""
    before = path.stat()
    _flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])


HARMS = {
    "flipped": (_flip, "text.txt has another digest"),
    "flipped in secret": (_flip_in_secret, "text.txt has another digest"),
    "cut": (_cut, "text.txt has 11 bytes, 12 were committed"),
    "deleted": (Path.unlink, "text.txt is missing"),
}


@pytest.mark.parametrize("how", HARMS)
def test_a_harmed_file_is_named_by_plan_and_verify_and_mended_by_the_run(how, home):
    _, before = run()
    store, artifact = before.prepared.store, before.artifact("first")
    path = store.files_path(artifact) / "text.txt"
    original = path.read_bytes()
    harm, problem = HARMS[how]
    harm(path)
    change = "model.rate=0.5"
    (reason,) = prepared(change).plan.stages["first"].reasons
    assert reason.category == "CORRUPT"
    assert problem in reason.path
    checked = cli("lineage", "verify", "--json")
    assert checked.returncode == 1
    assert problem in checked.stdout
    actions, _ = run(change)
    assert actions == {"first": "run", "second": "reuse", "model": "run", "total": "reuse"}
    assert path.read_bytes() == original
    assert store.verify("emit", artifact.key).status == "ok"


def test_bytes_that_rot_without_a_trace_are_found_by_verify(home):
    """A bad disk changes no inode: its signature is taken again, as if nothing had happened."""
    _, before = run()
    store, artifact = before.prepared.store, before.artifact("first")
    path = store.files_path(artifact) / "text.txt"
    _flip_in_secret(path)
    store._verified.record(path.parent, artifact.files)
    assert store.state("emit", artifact.key).status == "ok"
    assert "text.txt has another digest" in store.verify("emit", artifact.key).problem


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "emit"}'])
def test_a_torn_manifest_is_corrupt_and_mended(text, built_home):
    _, before = run()
    path = before.prepared.store.path("emit", before.artifact("first").key) / "artifact.json"
    path.write_text(text)
    (reason,) = prepared("model.rate=0.5").plan.stages["first"].reasons
    assert reason.category == "CORRUPT"
    assert reason.path.startswith("artifact.json is damaged: ")
    assert before.prepared.store.verify("emit", path.parent.name).problem == reason.path
    assert run("model.rate=0.5")[0]["first"] == "run"
    assert open_store(str(built_home / "store")).state("emit", path.parent.name).status == "ok"


def test_a_manifest_is_parsed_once_and_again_once_its_bytes_are_others(home, monkeypatch):
    _, done = run()
    store, key = open_store(str(home / "store")), done.artifact("first").key
    path, asked = store.path("emit", key) / "artifact.json", []
    parsed = manifest.parsed
    monkeypatch.setattr(manifest, "parsed", lambda *a: asked.append(a) or parsed(*a))
    assert store.read("emit", key) is store.read("emit", key)
    assert len(asked) == 1
    whole = path.read_text()
    path.write_text(whole.replace('"seconds": ', '"seconds": 1'))
    assert store.read("emit", key).seconds != done.artifact("first").seconds
    path.write_text(whole[:-20])
    with pytest.raises(FoundryError, match=r"artifact\.json cannot be read"):
        store.read("emit", key)
    path.unlink()
    assert store.read("emit", key) is None


def test_only_the_latest_manifests_are_kept(monkeypatch):
    asked = []
    monkeypatch.setattr(manifest, "parsed", lambda data, kind, key: asked.append(data) or data)
    kept = manifest.ParsedManifests(most=3 * 5)
    for number in (b"00000", b"00001", b"00002", b"00003", b"00003", b"00001", b"00000"):
        kept.parsed(number, "emit", number.decode())
    assert [int(data) for data in asked] == [0, 1, 2, 3, 0]


@pytest.mark.usefixtures("built_home")
def test_a_content_index_that_points_to_other_bytes_is_not_believed(home):
    """The entry of one input-content key is made to name a key built from other input bytes."""
    _, before = run()
    run("first.word=uno")
    other = prepared("first.word=uno").specs["model"].key
    entry = home / "store" / "content" / before.artifact("model").input_content_key
    entry.write_text(f"{other}\n")
    input_content_key = before.artifact("model").input_content_key
    catalogued = before.prepared.store.by_content("train", input_content_key)
    assert catalogued is None


def test_a_clock_set_back_an_hour_changes_no_order(home, monkeypatch):
    _, before = run()
    real = events_module.time.time_ns
    monkeypatch.setattr(events_module.time, "time_ns", lambda: real() - 3600 * 10**9)
    _, after = run(force=("first",))
    log = EventLog(home / "store" / "events")
    first = {before.run_id: [], after.run_id: []}
    for name in log.loose():
        event = log.read(name)
        first.get(event["run_id"], []).append(event["time"])
    assert max(first[before.run_id]) < min(first[after.run_id])
    connection = queries.connect()
    (shown,) = queries.sql(
        connection, f"select run_id from artifact where key = '{after.artifact('first').key}'"
    )
    assert shown["run_id"] == after.run_id
    connection.close()


def test_wrapped_errors_of_a_full_disk_are_recognised():
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise RuntimeError("writer failed") from error
    except RuntimeError as wrapped:
        assert is_full(wrapped)
    assert is_full(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert not is_full(RuntimeError("out of memory"))


FULL = [
    OSError(28, "No space left on device"),
    duckdb.IOException("Could not write all bytes to file"),
    duckdb.FatalException("the database has been invalidated by a write that failed"),
    duckdb.Error("checkpoint: No space left on device"),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_however_a_full_disk_shows_in_the_index_a_reused_run_succeeds(
    error, built_home, monkeypatch, capsys
):
    run()
    capsys.readouterr()

    def fail(index):
        raise error

    monkeypatch.setattr(Index, "advance", fail)
    assert main(["run", str(WORDS)]) == 0
    said = capsys.readouterr().err
    assert "the lineage index" in said and said.count("\n") == 1


def test_a_mistake_in_the_index_is_not_taken_for_a_full_disk(monkeypatch):
    def fail(index):
        raise duckdb.CatalogException("Table with name x does not exist")

    monkeypatch.setattr(Index, "advance", fail)
    with pytest.raises(duckdb.CatalogException):
        run()


BAD_LINE = """
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage


class Careless(Stage):
    kind = "careless"
    output = ArtifactType.TEXT_SHARDS
    Recipe = Recipe

    @staticmethod
    def run(ctx):
        (ctx.out / "text.txt").write_text("days of work")
        (ctx.records / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\\n{"loss": nan}\\n')
        return {}


STAGE = Careless
"""


def test_a_metrics_line_that_is_no_json_costs_that_line_and_is_named(tmp_path, monkeypatch, home):
    from flows.runs.engine import PipelineRun
    from flows.runs.planning import Request, prepare

    install_kinds(tmp_path, monkeypatch, {"careless": BAD_LINE})
    under_way = PipelineRun(prepare(Request(pipeline=str(stage_alone(tmp_path, "careless")))))
    under_way.start()
    artifact = under_way.stage("careless").artifact
    under_way.finish("succeeded")
    assert under_way.prepared.store.verify("careless", artifact.key).status == "ok"
    with attach(home / "lineage.duckdb") as connection:
        assert connection.execute("select step, value from metric").fetchall() == [(1, 2.5)]
        ((state, error),) = connection.execute("select state, error from attempt").fetchall()
    assert state == "committed"
    assert "records/metrics.jsonl, line 2: " in error
    log = (under_way.folder / "logs" / "careless.log").read_text()
    assert "left out of the lineage:\nrecords/metrics.jsonl, line 2: " in log
