"""The pipelines of LIBERO, planned without its package: wiring, scenes that agree, and the GPU size
carried through at a width that a CPU could train."""

import json

import pytest

from flows.cli import main
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import load_benchmark
from foundry_core.identity import sources
from foundry_core.pipeline.graph import load_pipeline
from foundry_core.pipeline.registry import stage_kind
from foundry_core.simulation import collection
from foundry_core.simulation.libero import catalog

pytestmark = pytest.mark.usefixtures("known_code")

EVALUATIONS = ("evaluate", "evaluate_blind", "evaluate_untrained", "evaluate_still")
TRAININGS = ("vla", "vla_blind", "vla_untrained")
VISION = {"image_size": 128, "patch_size": 32, "dim": 16, "n_layers": 1, "n_heads": 2}
LANGUAGE = {"kind": "transformer", "dim": 32, "n_layers": 4, "n_heads": 2}
HEAD = {"kind": "flow", "dim": 16, "n_layers": 1, "n_heads": 2}


@pytest.fixture
def libero(tmp_path, monkeypatch):
    """The names of LIBERO's problems, as its package has them in files; no package."""
    things = ["alphabet_soup", "bbq_sauce", "butter", "chocolate_pudding", "cream_cheese"]
    things += ["ketchup", "milk", "orange_juice", "salad_dressing", "tomato_sauce"]
    names = {
        "libero_object": [f"pick_up_the_{thing}_and_place_it_in_the_basket" for thing in things],
        "libero_spatial": [
            f"pick_up_the_black_bowl_{place}_and_place_it_on_the_plate"
            for place in ("from_table_center", "next_to_the_plate", "next_to_the_ramekin")
        ],
    }
    names["libero_spatial_swap"] = names["libero_spatial"]
    for suite, problems in names.items():
        folder = tmp_path / "bddl_files" / suite
        folder.mkdir(parents=True)
        for problem in problems:
            (folder / f"{problem}.bddl").write_text("(define)")
    monkeypatch.setattr(catalog, "_root", lambda: tmp_path)
    known = sources.package_fingerprint

    def fingerprint(name):
        return "0" * 64 if name in catalog.PACKAGES else known(name)

    for module in (sources, collection, "foundry_core.evaluation.benchmarks.base"):
        place = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{place}.package_fingerprint", fingerprint)
    catalog.tasks.cache_clear()
    yield names
    catalog.tasks.cache_clear()


def recipes(name, overrides=()):
    stages = load_pipeline(name, tuple(overrides), kinds=stage_kind).stages
    return {stage: one.recipe for stage, one in stages.items()}


@pytest.mark.parametrize(
    ("name", "suite"), [("libero", "libero_spatial"), ("libero-object", "libero_object")]
)
def test_demonstrations_and_exams_are_of_one_scene(libero, name, suite):
    found = recipes(name)
    scene = found["demos"].expert.scene
    assert found["scenes"].expert == found["demos"].expert
    assert found["scenes"].tasks == found["demos"].tasks
    assert scene.suite == suite
    tasks = [task.removesuffix("@swap") for task in found["demos"].tasks]
    assert sorted(set(tasks)) == sorted(libero[suite])
    assert len(tasks) == (2 if suite == "libero_spatial" else 1) * len(libero[suite])
    for stage in EVALUATIONS:
        assert found[stage].tasks == found["demos"].tasks
        assert type(scene).model_validate(found[stage].options) == scene
    assert found["vla_blind"].images is False
    assert found["vla_untrained"].training.steps == 0
    assert found["vla_blind"].model == found["vla_untrained"].model == found["vla"].model


def test_a_task_may_be_as_a_perturbation_has_it(libero):
    plain, *_ = libero["libero_spatial"]
    exam = load_benchmark("libero", {"suite": "libero_spatial"})
    swapped = exam.scene.problem(f"{plain}@swap")
    assert swapped.bddl.parent.name == "libero_spatial_swap"
    assert exam.task(f"{plain}@swap").name == swapped.name == f"{plain}@swap"
    assert exam.task(f"{plain}@swap").instruction == exam.task(plain).instruction
    assert f"{plain}@swap" not in exam.tasks()  # nor in an exam that names no tasks
    with pytest.raises(FoundryError, match="has no task 'nothing'"):
        exam.task("nothing@swap")
    with pytest.raises(FoundryError, match="no perturbation 'swop'") as caught:
        exam.task(f"{plain}@swop")
    assert "'swap'" in caught.value.hint
    with pytest.raises(FoundryError, match="libero_90 has no perturbation 'swap'"):
        load_benchmark("libero", {"suite": "libero_90"}).task(f"{plain}@swap")


def test_the_gpu_size_asks_for_gpus_and_more_of_everything(libero):
    small, large = recipes("libero"), recipes("libero-object")
    assert large["evaluate"].episodes_per_task == 50
    assert len(large["demos"].tasks) == 10
    assert large["vla"].training.steps > 10 * small["vla"].training.steps
    stages = load_pipeline("libero-object", (), kinds=stage_kind).stages
    assert {name for name, one in stages.items() if one.resources.gpus} == {
        "vlm", "vla", "vla_blind", "evaluate", "evaluate_blind", "evaluate_untrained",
    }  # fmt: skip


def test_it_is_planned_at_reduced_width(libero, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    changes = {"demos.episodes_per_task": 1, "vla.training.steps": 2, "demos.resources.cpus": 1}
    changes |= {"vlm.model.language": LANGUAGE, "vlm.model.vision": {"kind": "vit", **VISION}}
    changes |= {"scenes.resources.cpus": 1}
    changes |= {f"{stage}.model.head": HEAD for stage in TRAININGS}
    for stage in ("vlm", *TRAININGS, *EVALUATIONS):
        changes |= {f"{stage}.resources.gpus": 0, f"{stage}.resources.cpus": 1}
    for stage in EVALUATIONS[:3]:
        changes[f"{stage}.resources.device"] = "cpu"
    arguments = [part for path, v in changes.items() for part in ("-o", f"{path}={json.dumps(v)}")]
    assert main(["run", "libero-object", "--dry-run", "--json", *arguments]) == 0
    rows = json.loads(capsys.readouterr().out)["stages"]
    assert len(rows) == 15
    assert {row["action"] for row in rows} == {"run"}
