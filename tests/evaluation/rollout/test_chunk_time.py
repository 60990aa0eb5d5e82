"""How long a policy takes for a chunk: what is counted, and that counting changes nothing."""

import json
import math
from types import SimpleNamespace

import pytest

from foundry_core.evaluation import closed_loop
from foundry_core.evaluation.rollout.chunk_time import TimedPolicy
from foundry_core.evaluation.rollout.episodes import plan_episodes, run_episodes
from tests.evaluation.toy_benchmark import Line, Walker


class Slow:
    """Takes so many seconds of the clock, and half of them of the CPU, for its next pass."""

    execute_steps, cameras, hz, history = 2, (), 10.0, 3

    def __init__(self, *takes):
        self.takes, self.wall, self.cpu = list(takes), 0.0, 0.0

    def infer(self, requests, absent=frozenset()):
        took = self.takes.pop(0)
        self.wall, self.cpu = self.wall + took, self.cpu + took / 2
        return [absent] * len(requests)


def timed(policy, *sizes):
    found = TimedPolicy(policy, wall=lambda: policy.wall, cpu=lambda: policy.cpu)
    for size in sizes:
        found.infer([("client", {})] * size)
    return found


def test_known_times():
    """Of two requests in .1 s each waits .1 s, and costs .025 s of CPU."""
    policy = Slow(9.0, 0.1, 8.0, 0.2, 0.3)
    wait, work = timed(policy, 2, 2, 1, 1, 2).measures()
    assert (wait.task, wait.name, wait.n) == ("policy", "chunk_ms", 3)
    # (2 · 100 + 1 · 200 + 2 · 300) / 5 and (50 + 100 + 150) / 5
    assert wait.value == pytest.approx(200.0)
    assert (work.name, work.value) == ("chunk_cpu_ms", pytest.approx(60.0))
    # The ratio linearised: residuals 2 (100 - 200), 0, 2 (300 - 200); t(2) = 4.3027.
    half = 4.302653 * math.sqrt((200**2 + 200**2) * 3 / 2) / 5
    assert wait.high == pytest.approx(200 + half, rel=1e-5)
    assert wait.low == 0.0, "nothing takes less"


def test_the_first_pass_of_each_size_compiles_and_counts_nothing():
    assert timed(Slow(9.0, 8.0), 2, 1).measures() == []


def test_it_is_the_policy_for_everybody_else():
    policy = Slow(1.0)
    found = TimedPolicy(policy)
    assert (found.execute_steps, found.cameras, found.hz, found.history) == (2, (), 10.0, 3)
    assert found.infer([("a", {})], frozenset("x")) == [frozenset("x")]
    with pytest.raises(AttributeError, match="no_such"):
        _ = found.no_such


def test_episodes_are_those_of_the_policy_alone():
    plans = plan_episodes(Line(), ("near", "far"), first=0, count=4, seed=3)
    alone = run_episodes(Line(), Walker(), plans, env_workers=2)
    found = TimedPolicy(Walker())
    assert run_episodes(Line(), found, plans, env_workers=2) == alone
    assert [one.name for one in found.measures()] == ["chunk_ms", "chunk_cpu_ms"]
    assert all(one.value > 0 for one in found.measures())


def test_an_evaluation_keeps_them_among_its_records_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(closed_loop, "benchmark_of", lambda recipe: Line())
    concluded = []
    monkeypatch.setattr(closed_loop, "_conclude", lambda *given: concluded.append(given) or {})

    def played(name, passes):
        monkeypatch.setattr(TimedPolicy, "measures", passes)
        folder = tmp_path / name
        ctx = SimpleNamespace(
            recipe=closed_loop.ScenariosRecipe(tasks=("near",), episodes_per_task=3),
            out=folder / "out", records=folder / "out" / "records", scratch=folder / "scratch",
            seed=1, progress=lambda *_, **__: None, resources=SimpleNamespace(cpus=1),
        )  # fmt: skip
        ctx.records.mkdir(parents=True)
        ctx.scratch.mkdir()
        closed_loop.play(ctx, Walker(), {})
        return ctx.out

    found, without = played("a", TimedPolicy.measures), played("b", lambda self: [])
    rows = (found / "records" / "measures.jsonl").read_text().splitlines()
    assert [json.loads(row)["name"] for row in rows] == ["chunk_ms", "chunk_cpu_ms"]
    assert [one[2:4] for one in concluded[:1]] == [one[2:4] for one in concluded[1:]]
    both = [
        {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (found, without)
    ]
    assert both[0].pop("records/measures.jsonl")
    assert both[0] == both[1]
