"""What was built with other packages or variables is reused, and every plan says so."""

import io

import pytest
import yaml
from rich.console import Console

from flows.cli.commands.common import exit_code
from flows.console import plan_table
from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.home import home_dir
from foundry_core.identity import packages
from foundry_core.lineage import queries
from foundry_core.lineage.render import why_tree
from tests.support import install_kinds, stage_alone

KIND = """
import os

from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage


class DrawRecipe(Recipe):
    pass


class Draw(Stage):
    kind = "draw"
    output = ArtifactType.TEXT
    Recipe = DrawRecipe

    @classmethod
    def numerics(cls, resources):
        return {"threads": str(resources.cpus)}

    @staticmethod
    def run(ctx):
        import glyphs

        word = os.environ.get("DRAWN_WORD", "none")
        (ctx.out / "text").write_text(glyphs.draw(word))
        os.environ["DRAWN_WORD"] = "changed by the stage, for processes that it starts"
        return {}


STAGE = Draw
"""

FRAME = """
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage, slot


class FrameRecipe(Recipe):
    pass


class Frame(Stage):
    kind = "frame"
    output = ArtifactType.TEXT
    inputs = {"text": slot(ArtifactType.TEXT)}
    Recipe = FrameRecipe

    @staticmethod
    def run(ctx):
        text = (ctx.input("text").path / "text").read_text()
        (ctx.out / "text").write_text(f"[{text}]")
        return {}


STAGE = Frame
"""


@pytest.fixture
def draw(tmp_path, monkeypatch, small_home):
    """Plans the stage, or runs it as planned."""
    install_kinds(tmp_path, monkeypatch, {"draw": KIND, "frame": FRAME})
    (tmp_path / "glyphs.py").write_text("def draw(word):\n    return word\n")
    installed(tmp_path, "1.0")
    pipeline = str(stage_alone(tmp_path, "draw"))

    def planned(run=False, pipeline=pipeline, **options):
        packages._providers.cache_clear()
        prepared = prepare(Request(pipeline=pipeline, **options))
        if run:
            under_way = PipelineRun(prepared)
            under_way.start()
            under_way.walk()
            assert exit_code(under_way.finish("succeeded")["status"]) == 0
        return prepared.plan

    yield planned
    packages._providers.cache_clear()


def installed(site, version):
    for old in site.glob("glyphs-*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    info = site / f"glyphs-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: glyphs\nVersion: {version}\n")
    (info / "top_level.txt").write_text("glyphs\n")
    (info / "RECORD").write_text("")


def shown(renderable):
    out = io.StringIO()
    Console(file=out, width=250).print(renderable)
    return out.getvalue()


def test_other_resources_that_round_otherwise_are_drift(draw):
    draw(run=True)
    row = draw(overrides=(("draw.resources.cpus", 2),)).stages["draw"]
    assert row.action == "reuse"
    assert [reason.sentence() for reason in row.reasons] == ["built with threads 1, now 2"]


def test_drift_is_said_and_rebuilt_on_demand(draw, tmp_path, monkeypatch):
    draw(run=True)
    assert draw().stages["draw"].reasons == ()
    installed(tmp_path, "1.1")
    monkeypatch.setenv("DRAWN_WORD", "two")
    plan = draw(run=True)
    row = plan.stages["draw"]
    assert row.action == "reuse"
    assert [(r.category, r.path) for r in row.reasons] == [
        ("ENVIRONMENT", "package glyphs"),
        ("ENVIRONMENT", "variable DRAWN_WORD"),
    ]
    line = "built with glyphs 1.0, now 1.1; $DRAWN_WORD unset, now set"
    assert f"{line} (--strict-env rebuilds)" in shown(plan_table(plan))
    assert line in shown(why_tree(queries.why(queries.connect(home_dir()), row.key)))
    strict = draw(run=True, strict_env=True)
    assert strict.stages["draw"].action == "run"
    assert strict.stages["draw"].key == row.key
    assert draw(strict_env=True).stages["draw"].action == "reuse", "it is built with these now"
    assert draw().stages["draw"].reasons == ()


def test_what_others_need_no_longer_is_rebuilt_too_where_it_alone_drifted(draw, tmp_path):
    """Its reader can be reused as it lies; strict means that what stands behind it is of today."""
    pipeline = tmp_path / "two.yaml"
    stages = {"draw": {"kind": "draw"}, "frame": {"kind": "frame", "inputs": {"text": "draw"}}}
    pipeline.write_text(yaml.safe_dump({"name": "two", "stages": stages}))
    draw(run=True, pipeline=str(pipeline))
    installed(tmp_path, "1.1")
    plain = draw(pipeline=str(pipeline)).stages
    assert {name: row.action for name, row in plain.items()} == {"draw": "reuse", "frame": "reuse"}
    strict = draw(pipeline=str(pipeline), strict_env=True).stages
    assert strict["draw"].action == "run"
    assert [reason.category for reason in strict["draw"].reasons] == ["ENVIRONMENT"]
