"""The studies that ship: each is planned, changes what it says, and shares what it may."""

import numpy as np
import pytest

from flows.ablation.plan import plan_ablation
from flows.ablation.studies import find_study, study_names
from flows.ablation.table import plan_rows
from flows.ablation.variants import AblationRequest, Vary
from flows.cli import main
from foundry_core.config.documents import pipeline_names
from foundry_core.errors import FoundryError
from foundry_core.simulation import catalog
from foundry_core.simulation.demonstrations import with_jump
from tests.evaluation.lbm_eval.installed import Installed
from tests.full_size import write_raw
from tests.hf_checkpoints import make_vlm

pytestmark = pytest.mark.usefixtures("known_code")

# study → the first stage that differs, variants with the base, seeds
SHIPPED = {
    "vlm-pretraining": ("vlm", 2, 4),
    "llm-tokens": ("llm", 3, 3),
    "llm-pretraining": ("llm", 2, 4),
    "caption-amount": ("scenes", 4, 3),
    "tap-depth": ("vla", 3, 3),
    "cotraining": ("vla", 4, 3),
    "horizon": ("robot", 5, 3),
    "normalization": ("vla", 2, 3),
    "demonstrations": ("demos", 4, 3),
    "head": ("vla", 3, 3),
    "image-steps": ("vla", 3, 3),
    "same-recipe": ("vla", 2, 4),
    "lbm-backbone": ("vlm", 2, 1),
    "lbm-llm-tokens": ("llm", 3, 1),
    "lbm-sim-real": ("vla", 4, 1),
    "lbm-vlm-pretraining": ("vlm", 3, 1),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """What the full-size studies look for, at a size that can be laid out."""
    root = tmp_path_factory.mktemp("full-size")
    data = write_raw(root / "data")
    make_vlm(data / "qwen3-vl-2b", "qwen3_vl")
    return root


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, request):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FOUNDRY_PIPELINES", raising=False)
    if "lbm-" in request.node.name:
        monkeypatch.chdir(request.getfixturevalue("raw"))
        Installed(tmp_path, {}).use(monkeypatch)


def planned(name, seeds=1, **more):
    study = find_study(name)
    return plan_ablation(study.request(AblationRequest(pipeline=name, **more), seeds))


def test_the_table_is_complete_and_no_study_is_called_as_a_pipeline():
    assert study_names() == sorted(SHIPPED)
    assert not set(study_names()) & set(pipeline_names())


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_planned_and_begins_to_differ_where_it_says(name):
    stage, variants, seeds = SHIPPED[name]
    study, found = find_study(name), planned(name)
    assert (study.seeds, len(found.by_variant)) == (seeds, variants)
    assert study.question.endswith("?")
    assert study.sizes
    assert not found.notes  # no variant equals another
    base = found.seed_runs[0].names
    order = list(found.pipeline.stages)
    differing = {s for r in found.seed_runs for s, merged in r.names.items() if merged != base[s]}
    assert min(differing, key=order.index) == stage
    assert "evaluate" in differing


def test_llm_budgets_cost_little_more_than_the_largest():
    """wsd: each budget does the last fifth of its steps alone."""
    found = planned("llm-tokens")
    assert trained(found) == 800 + 0.2 * (50 + 200)
    close = planned("llm-tokens", vary=(Vary(path="vlm.training.steps", values=(800,)),))
    assert trained(close) == 850  # a second axis that changes nothing trains nothing more


def test_three_budgets_cost_at_most_a_third_more_than_the_largest():
    study = find_study("llm-tokens")
    budgets = study.model_copy(
        update={
            "base": {**study.base, "llm.training.steps": 1000},
            "vary": {"llm.training.steps": (800, 900)},
        }
    )
    found = plan_ablation(budgets.request(AblationRequest(pipeline=""), 1))
    assert trained(found) == 1000 + 160 + 180
    assert trained(found) <= 1.35 * 1000  # and the closer they lie, the more falls they repeat


def trained(ablation):
    """Steps of the stage llm that a run would do."""
    plan, total = ablation.merged.plan, 0
    for row in plan.to_run():
        if row.kind == "train_llm":
            steps = plan.specs[row.name].recipe.training.steps
            total += steps - (row.continues.step if row.continues else 0)
    return total


def test_more_is_asked_on_top_of_a_study():
    found = planned("tap-depth", seeds=2, overrides=(("vla.training.steps", 50),))
    assert len(found.seed_runs) == 6
    assert found.seed_runs[0].pipeline.stages["vla"].recipe.training.steps == 50


def test_the_command_takes_a_study_and_names_the_nearest(capsys):
    assert main(["ablate", "tap-depth", "--dry-run", "--seeds", "1"]) == 0
    told = capsys.readouterr().out
    assert "How many of the last layers should the action head see?" in told
    assert "what it costs" in told
    assert main(["ablate", "tap-deth", "--dry-run"]) == 2
    assert "tap-depth" in capsys.readouterr().err


def test_a_lab_has_studies_of_its_own(tmp_path, monkeypatch):
    folder = tmp_path / "lab" / "ablations"
    folder.mkdir(parents=True)
    (folder / "ours.yaml").write_text(
        "question: Is it?\npipeline: demo\nvary: {llm.training.steps: [1]}\n"
    )
    monkeypatch.setenv("FOUNDRY_PIPELINES", str(tmp_path / "lab"))
    assert find_study("ours").vary == {"llm.training.steps": (1,)}
    assert find_study(str(folder / "ours.yaml")) == find_study("ours")
    (folder / "bad.yaml").write_text("question: Is it?\npipeline: demo\nvaries: {}\n")
    with pytest.raises(FoundryError, match="varies"):
        find_study("bad")


def test_many_seed_runs_are_a_row_for_each_kind_of_variant():
    found = planned("head", vary=(Vary(path="llm.training.steps", values=tuple(range(1, 8))),))
    table = plan_rows(found)
    assert len(found.seed_runs) == 10
    many = planned(
        "tap-depth", 5, vary=(Vary(path="llm.training.steps", values=tuple(range(1, 8))),)
    )
    rows = plan_rows(many)
    assert (len(table), len(many.seed_runs)) == (11, 75)
    assert rows[0][:2] == ["variants", "seed runs"]
    assert rows[1][1] == "5"
    assert sum(int(row[1]) for row in rows[1:]) == 75
    assert len(rows) < 8
    assert "7 values, 1 … 7" in rows[-1][-1]


def test_one_step_of_a_broken_record_jumps_and_nothing_else():
    fields = {catalog.ACTION_XYZ: np.zeros((5, 3)), "other": np.ones(5)}
    broken = with_jump(fields)
    assert broken[catalog.ACTION_XYZ][:, 0].tolist() == [0, 0, 2, 0, 0]
    assert fields[catalog.ACTION_XYZ].max() == 0
    assert broken["other"] is fields["other"]
