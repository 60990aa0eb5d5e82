"""Pipelines that ship at full size: they plan without data as far as that goes, say what they lack,
state what they take, and train: each of their trainings for one step at a width a CPU can do."""

import json
import math
from pathlib import Path

import pytest

import flows
from flows.cli import main
from flows.cli.commands.size import COLUMNS, cells
from flows.dispatch import inline
from foundry_core.data.export.lerobot import export_lerobot
from foundry_core.data.shards.description import read_robot
from foundry_core.errors import FoundryError
from foundry_core.pipeline.graph import load_pipeline
from foundry_core.pipeline.registry import stage_kind
from foundry_core.training.peaks import peak_of
from foundry_core.training.sizing.stages import cost_of, training_stages
from tests.full_size import PIPELINES, reduced, write_raw
from tests.hf_checkpoints import make_vlm

pytestmark = pytest.mark.usefixtures("known_code")

REPOSITORY = Path(__file__).parents[2]
SCRATCH = [name for name in PIPELINES if "qwen" not in name]
GIB = 2**30
COMMIT = "a" * 40


def loaded(name, overrides=None):
    return load_pipeline(name, tuple((overrides or {}).items()), kinds=stage_kind)


@pytest.mark.parametrize("name", PIPELINES)
def test_it_is_whole_without_data_and_fits_an_80_gb_gpu(name):
    pipeline = loaded(name)
    assert pipeline.name == name
    assert pipeline.targets == ["vla"]
    for stage in training_stages(pipeline):
        cost = cost_of(pipeline, stage)
        assert cost.bytes_per_gpu < 72 * GIB, (stage, cost.memory)
        assert 0 < cost.gpu_hours(989e12, 0.4) < 7000


def test_the_page_shows_what_the_command_says():
    page = (REPOSITORY / "docs" / "training.md").read_text()
    assert f"| pipeline | stage | {' | '.join(COLUMNS)} |" in page
    for name in PIPELINES:
        pipeline = loaded(name)
        for stage in training_stages(pipeline):
            found = cells(cost_of(pipeline, stage), peak_of("H100"), 0.4)
            assert f"| `{name}` | {stage} | {' | '.join(found)} |" in page


@pytest.mark.parametrize("name", PIPELINES)
def test_rates_rise_within_the_first_tenth(name):
    pipeline = loaded(name)
    for stage in training_stages(pipeline):
        schedule = pipeline.stages[stage].recipe.training.schedule
        assert 0 < schedule.warmup <= cost_of(pipeline, stage).steps / 10


def test_the_papers_numbers():
    pipeline = loaded("foundry-vla-1.7b")
    llm, vlm, vla = (cost_of(pipeline, name) for name in ("llm", "vlm", "vla"))
    # 500M rows of 2048: "1T tokens", at 512 rows a step.
    assert llm.tokens == pytest.approx(500e6 * 2048, rel=1e-6)
    assert llm.parameters == 1_439_895_552
    assert vlm.samples == 200e6
    assert (vlm.rows[0].images, vlm.rows[0].positions) == (1, 255)
    assert vla.samples == 102.4e6 and vla.steps == 100_000
    # Four cameras at two steps, 64 tokens each; the head alone is the paper's 325M.
    assert vla.rows[0].images == 8
    assert vla.rows[0].positions == 576 == 8 * 64 + 64
    assert vla.parts["head"].parameters == pytest.approx(325e6, rel=1e-3)
    robot = pipeline.stages["vla"].recipe.data.robot.inputs
    assert (robot.horizon, robot.action_past, robot.image_steps) == (16, 1, (-1, 0))
    model = pipeline.stages["vla"].stage.architecture(
        pipeline.stages["vla"].recipe, pipeline.views["vla"].inputs
    )
    assert (model.action_dim, model.proprio_dim, model.head.num_noise_samples) == (20, 20, 8)
    qwen = cost_of(loaded("foundry-qwen3vla-2.1b"), "vla")
    assert qwen.parameters == 2_127_532_032 + qwen.parts["head"].parameters


@pytest.mark.parametrize("name", PIPELINES)
def test_what_is_absent_is_told_at_once(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", name, "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert "'robot': source 'data/lbm' does not exist" in told["error"]
    if name in SCRATCH:
        for place in ("dclm", "dclm-sample", "datacomp-dr"):
            assert f"source 'data/{place}' does not exist" in told["error"]
        assert told["hint"].startswith("set ") and told["hint"].endswith("where the data lie")
        for setting in ("tokenizer.sources.0", "text.source", "captions.source", "robot.source"):
            assert f"{setting}.path" in told["hint"]
    else:
        assert "'Qwen/Qwen3-VL-2B-Instruct' has revision null" in told["error"]
        assert "set robot.source.path to where the data lie" in told["hint"]
    assert not (tmp_path / ".foundry").exists()


def test_with_data_it_plans(small_home, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("FOUNDRY_KINDS", raising=False)
    write_raw(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inline, "visible_gpus", lambda: 64)
    for name in ("foundry-vla-1.7b", "foundry-qwen3vla-2.1b"):
        more = [] if name in SCRATCH else ["-o", f"vlm.revision={COMMIT}"]
        assert main(["plan", name, "--json", *more]) == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["stages"]}
        assert {row["action"] for row in rows.values()} == {"run"}
        assert rows["vla"]["kind"] == "train_vla"


def test_a_language_model_preset_is_included_by_name():
    """It was refused for its vocab_size, which pads the table."""
    pipeline = loaded("foundry-vla-1.7b")
    assert pipeline.stages["llm"].recipe.model.vocab_size == 50432
    with pytest.raises(FoundryError, match=r"vocab_size = 50432 is less than the 60000 tokens"):
        loaded("foundry-vla-1.7b", {"tokenizer.vocab_size": 60000})


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_vlm(tmp_path_factory.mktemp("checkpoint"), "qwen3_vl")


def carried_out(home, name, overrides):
    """Stage → its folder, after a run; what the run's trainings say is held against their sizes."""
    result = flows.run(name, overrides, quiet=True)
    assert result["status"] == "succeeded", result
    made = {row["name"]: home / "store" / row["kind"] / row["key"] for row in result["stages"]}
    pipeline = loaded(name, overrides)
    for stage in training_stages(pipeline):
        rows = (made[stage] / "records" / "metrics.jsonl").read_text().splitlines()
        (row,) = map(json.loads, rows)
        assert row["step"] == 1 and math.isfinite(row["loss"]) and row["grad_norm"] > 0
        metrics = json.loads((made[stage] / "artifact.json").read_text())["metrics"]
        assert metrics["parameters"] == cost_of(pipeline, stage).parameters
    return made


@pytest.mark.slow("collects, converts and trains in every pipeline")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PIPELINES)
def test_it_trains_one_step_at_reduced_width(shared_home, raw, checkpoint, name):
    overrides = reduced(name, raw, checkpoint)
    made = carried_out(shared_home, name, overrides)
    assert (made["vla"] / "policy.json").is_file()
    shipped, small = loaded(name), loaded(name, overrides)
    for stage in training_stages(shipped):
        for what in ("strategy", "recompute"):
            ours, theirs = (getattr(p.stages[stage].resources, what) for p in (small, shipped))
            assert ours == theirs
        assert small.stages[stage].recipe.training.precision == "bf16_weights"


@pytest.mark.slow("collects, converts and trains in every pipeline")
@pytest.mark.timeout(900)
def test_the_demonstrations_may_be_lerobots(shared_home, raw, tmp_path):
    """The same episodes, exported: another source, the same policy."""
    name = "foundry-vla-11m"
    spartan = reduced(name, raw)
    made = carried_out(shared_home, name, spartan)
    export_lerobot(str(made["robot"]), tmp_path / "lerobot", images="jpeg")
    source = {"format": "lerobot", "path": str(tmp_path / "lerobot")}
    overrides = {k: v for k, v in spartan.items() if k != "robot.source.path"}
    changed = {"robot.source": source, "robot.mapping": "lbm_lerobot"}
    again = carried_out(shared_home, name, overrides | changed)
    first, second = (read_robot(folder["robot"]) for folder in (made, again))
    assert first.fields == second.fields
    stats = [(folder["stats"] / "stats.json").read_bytes() for folder in (made, again)]
    assert stats[0] == stats[1]
