"""A stage that reads what its key does not know is told on, or refused."""

import pytest

from flows.runs.engine import PipelineRun
from flows.runs.events import Note
from flows.runs.planning import Request, prepare
from foundry_core.execution.job import StageFailed
from tests.support import install_kinds, stage_alone

KIND = """
import json, multiprocessing, os, tempfile
from pathlib import Path

from foundry_core.config.canonical import Location
from foundry_core.files import sha256_of
from foundry_core.identity.sources import fingerprint
from foundry_core.parallel import ordered_map
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage


class ReadRecipe(Recipe):
    path: str
    named: Location[str] = ""
    hashed: Location[str] = ""
    how: str = "plainly"


def text_of(path):
    return Path(path).read_text()


class Read(Stage):
    kind = "read"
    output = ArtifactType.TEXT
    Recipe = ReadRecipe

    @classmethod
    def sources(cls, recipe):
        found = {"named": fingerprint(recipe.named)} if recipe.named else {}
        return found | ({"hashed": sha256_of(recipe.hashed)} if recipe.hashed else {})

    @staticmethod
    def run(ctx):
        path, how = ctx.recipe.path, ctx.recipe.how
        if how in ("fork", "spawn"):
            with multiprocessing.get_context(how).Pool(1) as pool:
                (text,) = pool.map(text_of, [path])
                pool.close()
                pool.join()
        elif how == "ray":
            (text, _) = ordered_map(text_of, [path, path], workers=2)
        else:
            text = text_of(path)
        (ctx.out / "text").write_text(text)
        (ctx.out / "text").read_text()
        (ctx.scratch / "state").write_text(text)
        (ctx.scratch / "state").read_text()
        with tempfile.NamedTemporaryFile("w") as stream:
            Path(stream.name).read_text()
        Path("/proc/self/status").read_text()
        Path(json.__file__).read_text()
        return {}


STAGE = Read
"""


@pytest.fixture
def read(tmp_path, monkeypatch, small_home):
    """Runs the stage on a file of data; what the run tells, and what the artifact keeps."""
    install_kinds(tmp_path, monkeypatch, {"read": KIND})
    data = tmp_path / "data" / "one.txt"
    data.parent.mkdir()
    data.write_text("one")

    def run(strict_reads=False, **recipe):
        said = []
        pipeline = stage_alone(tmp_path, "read", path=str(data), **recipe)
        request = Request(pipeline=str(pipeline), strict_reads=strict_reads)
        under_way = PipelineRun(prepare(request), observe=said.append)
        under_way.start()
        artifact = under_way.stage("read").artifact
        notes = [event.text for event in said if isinstance(event, Note)]
        return notes, artifact.provenance["undeclared_reads"]

    run.data = str(data)
    return run


RAY = pytest.param("ray", marks=pytest.mark.slow("starts Ray"))


@pytest.mark.parametrize("how", ["plainly", "fork", "spawn", RAY])
def test_a_file_that_the_key_does_not_know_is_named(read, how):
    notes, kept = read(how=how)
    assert kept == [read.data]
    assert notes == [
        f"stage read read {read.data}, which its key does not know: name it in sources(), or make "
        "it an input"
    ]


def test_what_sources_name_or_read_is_known(read, tmp_path):
    assert read(named=str(tmp_path / "data")) == ([], [])
    assert read(hashed=read.data) == ([], [])


def test_nothing_is_committed_where_that_is_strict(read):
    with pytest.raises(StageFailed, match=r"it read .*one.txt, which its key does not know"):
        read(strict_reads=True)
    assert read(strict_reads=True, named=read.data) == ([], [])
