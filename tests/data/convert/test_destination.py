"""`foundry data convert` to a folder and to S3: whole or not there, and gone on with."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.cli import main
from flows.reports.datasets import convert
from foundry_core import objects
from foundry_core.data.convert import destination
from foundry_core.data.shards.read import ShardSet
from foundry_core.errors import FoundryError
from foundry_core.objects import connect
from tests.data.convert.conversions import OPTIONS
from tests.data.convert.test_robot import write_episode
from tests.data.convert.test_units import files
from tests.data.shards.test_shards import verify
from tests.s3 import s3_server, use_s3


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    return use_s3(monkeypatch, server)


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_episode(tmp_path / "demos", number)
    (tmp_path / "demos/demos.json").write_text("{}")
    return tmp_path / "demos"


def converted(source: Path | str, out: Path | str) -> dict:
    overrides = list(OPTIONS["demonstrations"].items())
    return convert("demonstrations", str(source), out, overrides)


def fetched(address: str, folder: Path) -> Path:
    place = connect(address)
    for listed in place.find():
        (folder / listed.name).parent.mkdir(parents=True, exist_ok=True)
        place.download(listed.name, folder / listed.name, listed.size)
    return folder


def test_s3_gets_what_a_folder_gets_the_manifest_last(source, bucket, tmp_path, monkeypatch):
    put: list[str] = []
    upload = objects.Objects.upload
    monkeypatch.setattr(
        objects.Objects,
        "upload",
        lambda self, path, name: (put.append(name), upload(self, path, name))[1],
    )
    converted(source, tmp_path / "here")
    converted(source, bucket)
    assert put[-1] == "manifest.jsonl"
    assert files(fetched(bucket, tmp_path / "there")) == files(tmp_path / "here")
    verify(ShardSet(tmp_path / "there"))
    assert not any((tmp_path / "home/cache/conversions").iterdir())
    with pytest.raises(FoundryError, match=r"is not empty: it holds manifest.jsonl"):
        converted(source, bucket)


def test_an_upload_that_broke_off_does_not_repeat_what_is_there(
    source, bucket, tmp_path, monkeypatch
):
    put: list[str] = []
    upload = objects.Objects.upload

    def breaks(self, path, name):
        if len(put) == 4:
            raise KeyboardInterrupt
        put.append(name)
        upload(self, path, name)

    monkeypatch.setattr(destination, "_THREADS", 1)
    monkeypatch.setattr(objects.Objects, "upload", breaks)
    with pytest.raises(KeyboardInterrupt):
        converted(source, bucket)
    assert "manifest.jsonl" not in {listed.name for listed in connect(bucket).find()}
    connect(bucket).write(put[1], b"somebody else's")
    first = list(put)
    put.clear()
    monkeypatch.setattr(
        objects.Objects,
        "upload",
        lambda self, path, name: (put.append(name), upload(self, path, name))[1],
    )
    converted(source, bucket)
    assert set(first) & set(put) == {first[1]}
    converted(source, tmp_path / "here")
    assert files(fetched(bucket, tmp_path / "there")) == files(tmp_path / "here")


def test_s3_to_s3(source, bucket, tmp_path):
    place = connect(f"{bucket}/raw")
    for path in sorted(source.rglob("*")):
        if path.is_file():
            place.upload(path, str(path.relative_to(source)))
    converted(f"{bucket}/raw", f"{bucket}/shards")
    converted(source, tmp_path / "here")
    assert files(fetched(f"{bucket}/shards", tmp_path / "there")) == files(tmp_path / "here")


def test_a_place_that_holds_something_else_is_refused(source, bucket, tmp_path):
    connect(bucket).write("notes.txt", b"mine")
    with pytest.raises(FoundryError, match=r"is not empty: it holds notes.txt"):
        converted(source, bucket)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    with pytest.raises(FoundryError, match="is not empty"):
        converted(source, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    converted(source, tmp_path / "empty")
    verify(ShardSet(tmp_path / "empty"))
    with (
        destination.destination(tmp_path / "out", print),
        pytest.raises(FoundryError, match="another process converts"),
    ):
        converted(source, tmp_path / "out")


def test_a_failed_conversion_leaves_no_folder(source, tmp_path):
    write_episode(source, 1, nan_at=2)
    with pytest.raises(FoundryError, match="not finite"):
        converted(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        "export SHARDS s3://b/out --to lerobot",
        "stats SHARDS --out s3://b/stats.json",
        "merge-stats SHARDS --out s3://b/stats.json",
        "show SHARDS --html s3://b/page.html",
        "show SHARDS --plot s3://b/plots",
        "inspect SHARDS --images s3://b/sheet.png",
        "inspect SHARDS --mapping s3://b/mapping.yaml",
        "preview --mix SHARDS --images s3://b/sheets",
        "check SHARDS --stats s3://b/stats.json",
        "convert --from jsonl SHARDS out --tokenizer s3://b/tokenizer",
    ],
)
def test_an_address_where_a_file_of_this_machine_is_meant(words, tmp_path, capsys):
    assert main(["data", *words.replace("SHARDS", str(tmp_path)).split()]) == 2
    assert "'s3://b/" in capsys.readouterr().err
    assert not (tmp_path / "s3:").exists()


def test_piped_progress_is_a_line_per_event(source, tmp_path, capsys):
    options = [
        f"-oepisodes_per_shard=1 -ocameras=[scene] -ofields={json.dumps(FIELDS_ALL)}",
    ][0].replace(", ", ",")
    words = ["data", "convert", "--from", "demonstrations", str(source), "out", *options.split()]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines()[0].endswith("convert: starts")
    assert json.loads(printed.out)["written"] == "out"


FIELDS_ALL = OPTIONS["demonstrations"]["fields"]


def test_kill_9_in_the_middle_of_an_upload(source, bucket, tmp_path):
    """The process kills itself when it puts its third file."""
    script = (
        "import os, signal, sys\n"
        "from foundry_core.objects import Objects\n"
        "from tests.data.convert.test_destination import converted\n"
        "count, upload = [0], Objects.upload\n"
        "def put(self, path, name):\n"
        "    count[0] += 1\n"
        "    if count[0] == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    upload(self, path, name)\n"
        "Objects.upload = put\n"
        "converted(*sys.argv[1:])\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", script, str(source), bucket]
    ended = subprocess.run(command, env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert "manifest.jsonl" not in {listed.name for listed in connect(bucket).find()}
    converted(source, bucket)
    converted(source, tmp_path / "here")
    assert files(fetched(bucket, tmp_path / "there")) == files(tmp_path / "here")
