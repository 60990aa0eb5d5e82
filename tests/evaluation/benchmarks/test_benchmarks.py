"""Benchmarks are found by name, ours and those of installed packages; what they lack is named."""

from typing import ClassVar

import pytest

from foundry_core.config import registry
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import BENCHMARKS, Benchmark, load_benchmark
from foundry_core.evaluation.rollout.episodes import plan_episodes, run_episodes
from tasks.evaluate import Evaluate, EvaluateRecipe
from tasks.evaluate_control import EvaluateControl
from tests.evaluation.toy_benchmark import Walker

SMALL = {"render": {"size": 32, "supersample": 1}}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The toy benchmark as an installed distribution of its own: metadata with an entry point."""
    metadata = tmp_path / "toy_benchmarks-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: toy-benchmarks\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text(
        "[foundry.benchmarks]\nline = tests.evaluation.toy_benchmark\nunfinished = toy_unfinished\n"
    )
    (tmp_path / "toy_unfinished.py").write_text(
        "from foundry_core.evaluation.benchmarks.base import Benchmark\n"
        "class Unfinished(Benchmark):\n"
        "    name = 'unfinished'\n"
        "    def tasks(self): return {}\n"
        "    def cameras(self): return ()\n"
        "BENCHMARK = Unfinished\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry._entry_points.cache_clear()
    yield
    registry._entry_points.cache_clear()


def test_they_are_found_by_name_and_their_options_checked():
    assert BENCHMARKS.names() == ["aloha", "lbm", "libero", "metaworld", "pusht"]
    assert load_benchmark("metaworld", SMALL).render.size == 32
    with pytest.raises(FoundryError, match="metaworld"):
        load_benchmark("metaword")
    with pytest.raises(FoundryError, match=r"render\.sise"):
        load_benchmark("metaworld", {"render": {"sise": 3}})
    with pytest.raises(FoundryError, match="drawer-open-v3"):
        load_benchmark("metaworld").task("drawer-open")


@pytest.mark.usefixtures("installed")
def test_another_package_adds_one_without_touching_ours():
    assert {"line", "metaworld"} <= set(BENCHMARKS.names())
    benchmark = load_benchmark("line", {"faults": {2: 1}})
    plans = plan_episodes(benchmark, benchmark.default_tasks(), first=0, count=2, seed=0)
    results = run_episodes(benchmark, Walker(noise=0.0), plans)
    assert [r.success for r in results] == [True] * 4
    assert set(Evaluate.sources(EvaluateRecipe(benchmark="line"))) == {"benchmark:line"}
    Evaluate.check(EvaluateRecipe(benchmark="line", tasks=("near",)), {"policy": {"policy": None}})
    with pytest.raises(FoundryError, match="line has no task 'nea'"):
        Evaluate.check(EvaluateRecipe(benchmark="line", tasks=("nea",)), {})


@pytest.mark.usefixtures("installed")
def test_what_a_benchmark_does_not_define_is_named():
    with pytest.raises(FoundryError, match="Unfinished does not define hz, environment"):
        load_benchmark("unfinished")


def test_a_benchmark_without_its_methods_cannot_be_made():
    class Bare(Benchmark):
        name: ClassVar[str] = "bare"
        hz: ClassVar[float] = 1.0

    with pytest.raises(TypeError, match=r"abstract.*cameras.*environment.*tasks"):
        Bare()


def test_a_task_that_doing_nothing_solves_is_told_while_planning():
    def notes(kind, *tasks):
        return kind.notes(kind.Recipe(benchmark="metaworld", tasks=tasks), {})

    told = ["handle-press-v3 says little: a hand that sinks solves 22 of 25 scenarios"]
    for kind in (Evaluate, EvaluateControl):
        assert notes(kind, "push-v3", "handle-press-v3") == told
        assert notes(kind, "push-v3") == notes(kind) == []
