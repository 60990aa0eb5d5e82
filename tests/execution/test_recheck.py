"""What was planned is what runs: code and sources that change meanwhile commit nothing."""

import os

import pytest

from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.config.overrides import parse_override
from foundry_core.execution.job import StageFailed
from tests.support import install_kinds, stage_alone

KIND = """
from collections.abc import Mapping
from pathlib import Path

from foundry_core.config.canonical import Location
from foundry_core.identity.sources import fingerprint
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage


class ReadRecipe(Recipe):
    path: Location[str]
    edit: Location[str] = ""


def shout(text):
    return text.upper()


class Read(Stage):
    kind = "read"
    output = ArtifactType.TEXT
    Recipe = ReadRecipe

    @classmethod
    def sources(cls, recipe) -> Mapping[str, str]:
        return {"text": fingerprint(recipe.path)}

    @staticmethod
    def run(ctx):
        (ctx.out / "text").write_text(shout(Path(ctx.recipe.path).read_text()))
        if ctx.recipe.edit:
            file = Path(ctx.recipe.edit)
            file.write_text(file.read_text().replace("upper", "title").replace("one", "two"))
        return {}


STAGE = Read
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A lab's own stage kind and its raw data, in a package that only its children import."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FOUNDRY_STORE", raising=False)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    package = install_kinds(tmp_path, monkeypatch, {"read": KIND})
    (tmp_path / "data").write_text("one")
    stage_alone(tmp_path, "read", path=str(tmp_path / "data"))
    return tmp_path, package / "read.py", tmp_path / "data"


def planned(folder, *overrides):
    pairs = tuple(parse_override(text) for text in overrides)
    run = PipelineRun(prepare(Request(pipeline=str(folder / "p.yaml"), overrides=pairs)))
    run.start()
    return run


def finished(run):
    try:
        run.stage("read")
    finally:
        run.finish("succeeded")
    return run.artifact("read")


@pytest.mark.parametrize(
    ("what", "message"),
    [("code", "its code changed since the run was planned: .*shout"), ("data", "sources changed")],
)
def test_what_changed_before_it_started_is_refused(lab, what, message):
    folder, code, data = lab
    run = planned(folder)
    file = code if what == "code" else data
    before = file.read_text()
    file.write_text(before.replace("upper", "title").replace("one", "two"))
    with pytest.raises(StageFailed, match=message):
        finished(run)
    assert run.prepared.store.artifacts() == []
    file.write_text(before)
    artifact = finished(planned(folder))
    assert (run.prepared.store.root / "read" / artifact.key / "text").read_text() == "ONE"


@pytest.mark.parametrize(
    ("what", "message"),
    [("code", "its code changed while it ran: .*shout"), ("data", "sources changed while it ran")],
)
def test_what_changed_while_it_ran_commits_nothing(lab, what, message):
    folder, code, data = lab
    run = planned(folder, f"read.edit={code if what == 'code' else data}")
    with pytest.raises(StageFailed, match=message):
        finished(run)
    assert run.prepared.store.artifacts() == []
    again = planned(folder)
    assert again.prepared.plan.stages["read"].action == "run"
    artifact = finished(again)
    expected = "One" if what == "code" else "TWO"
    assert (again.prepared.store.root / "read" / artifact.key / "text").read_text() == expected


def test_an_edit_that_keeps_size_and_mtime_runs_as_edited(lab):
    """Python would take the bytecode that the first run left for the edited file's."""
    folder, code, _ = lab
    stat = code.stat()
    first = finished(planned(folder))
    assert list((code.parent / "__pycache__").glob("read.*.pyc"))
    code.write_text(code.read_text().replace("upper", "title"))
    os.utime(code, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    run = planned(folder)
    artifact = finished(run)
    assert artifact.key != first.key
    assert (run.prepared.store.root / "read" / artifact.key / "text").read_text() == "One"


def test_a_recipe_that_reads_otherwise_is_refused_also_under_a_declared_version(lab):
    """Code that a version answers for may have changed; what the recipe means may not."""
    folder, code, _ = lab
    declared = 'kind = "read"\n    code = "1"'
    code.write_text(code.read_text().replace('kind = "read"', declared))
    run = planned(folder)
    text = code.read_text().replace(
        'edit: Location[str] = ""', 'edit: Location[str] = ""\n    n: int = 3'
    )
    code.write_text(text)
    with pytest.raises(StageFailed, match=r"its recipe means another thing since .*: n"):
        finished(run)
    assert run.prepared.store.artifacts() == []
    code.write_text(text.replace(".upper()", ".title()").replace("\n    n: int = 3", ""))
    assert finished(run).code.startswith("version:")
