"""What the parent hears of a stage's process, however that ends."""

import math

import pytest

from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
from foundry_core.execution.job import StageFailed
from foundry_core.identity.environment import BUILT_ON
from tests.support import install_kinds, stage_alone

KIND = """
import os, signal
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage


class EndRecipe(Recipe):
    how: str


class End(Stage):
    kind = "end"
    output = ArtifactType.TEXT
    Recipe = EndRecipe

    @staticmethod
    def run(ctx):
        (ctx.out / "text").write_text("x")
        if ctx.recipe.how == "deterministic":
            import torch

            torch.use_deterministic_algorithms(True)
            torch.set_float32_matmul_precision("high")
        if ctx.recipe.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if ctx.recipe.how == "exit":
            os._exit(7)
        if ctx.recipe.how == "raise":
            raise ValueError("wrong")
        return {"nan": float("nan"), "object": {1} if ctx.recipe.how == "set" else 0}


STAGE = End
"""


@pytest.fixture
def end(tmp_path, monkeypatch, small_home):
    """Runs a stage that ends so."""
    install_kinds(tmp_path, monkeypatch, {"end": KIND})

    def run(how):
        pipeline = stage_alone(tmp_path, "end", how=how)
        under_way = PipelineRun(prepare(Request(pipeline=str(pipeline))))
        under_way.start()
        return under_way.stage("end")

    return run


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("kill", r"its process ended with signal 9 and no result \(out of memory\? see"),
        ("exit", r"its process ended with exit code 7 and no result \(see the stage's log"),
        ("raise", r"ValueError: wrong \(see the stage's log; its log: "),
        ("set", r"its metrics are no JSON: .*set .*return numbers"),
    ],
)
def test_every_end_is_said_in_words(end, how, message):
    with pytest.raises(StageFailed, match=message):
        end(how)


def test_a_metric_that_is_no_number_arrives(end):
    assert math.isnan(end("well").artifact.metrics["nan"])


def test_how_its_torch_rounded_is_recorded_as_it_left_it(end):
    numerics = end("deterministic").artifact.provenance[BUILT_ON]["numerics"]
    assert numerics["deterministic"] == "True"
    assert numerics["float32_matmul"] == "high"
    assert not numerics.keys() & {"threads"}, "the kind says nothing of those"


def test_a_stage_without_torch_says_nothing_of_its_flags(end):
    numerics = end("well").artifact.provenance[BUILT_ON]["numerics"]
    assert "deterministic" not in numerics
