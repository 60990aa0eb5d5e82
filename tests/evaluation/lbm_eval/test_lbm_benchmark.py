"""LBM Eval driven against a policy: outcomes, crashes, starts that die or hang, resuming."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from foundry_core.data.contract.fields import FieldContract, canonical_field
from foundry_core.data.contract.statements import CameraContract, PolicyContract
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import load_benchmark
from foundry_core.evaluation.lbm_eval.drive import Drive
from foundry_core.evaluation.lbm_eval.installation import find_installation
from foundry_core.evaluation.lbm_eval.served import ServedForLbm
from foundry_core.evaluation.rollout.episodes import plan_episodes
from tasks.evaluate import Evaluate, EvaluateRecipe
from tests.evaluation.lbm_eval.installed import Installed

HANG = pytest.param("hang", marks=pytest.mark.slow("waits until a hang counts as one"))
BOX, CUP = "pick_and_place_box", "place_cup_by_coaster"
ARM = "robot__{}__poses__right::panda__{}"
SEEN = {ARM.format("actual", part): FieldContract(dims=n) for part, n in (("xyz", 3),)}
TOLD = {ARM.format("action", part): canonical_field(f"__{part}") for part in ("xyz", "rot_6d")}


class Holds:
    """Commands what it sees, in chunks of 4; what fails is its own."""

    history = 0

    def __init__(
        self, *, nan: int | None = None, fails: bool = False, camera: str = "scene_right_0"
    ):
        self.contract = PolicyContract(
            hz=10,
            cameras={camera: CameraContract()},
            observes={n: canonical_field(n) for n in SEEN},
            commands=TOLD,
            ahead=4,
            execute_steps=4,
        )
        self.execute_steps, self.seeds, self.calls = 4, {}, 0
        self._nan, self._fails = nan, fails

    def reset(self, client, seed):
        self.seeds[client] = seed

    def forget(self, client):
        self.seeds.pop(client, None)

    def infer(self, requests, absent=frozenset()):
        self.calls += 1
        if self._fails and self.calls > 1:  # the first is the server's own
            raise ValueError("a layer is missing")
        return [self._chunk(seen["lowdim"]) for _, seen in requests]

    def _chunk(self, lowdim):
        xyz = np.tile(lowdim[ARM.format("actual", "xyz")], (4, 1))
        if self.calls - 2 == self._nan:
            xyz = xyz * np.nan
        rows = np.tile([1.0, 0, 0, 0, 1.0, 0], (4, 1))
        return {ARM.format("action", "xyz"): xyz, ARM.format("action", "rot_6d"): rows}


def played(tmp_path, policy=None, *, count=3, tasks=(BOX,), processes=1, seed=0, **options):
    """task/scenario → rollout, driven in `tmp_path`."""
    benchmark, found = load_benchmark("lbm"), {}
    plans = plan_episodes(benchmark, tasks, first=0, count=count, seed=seed)

    def add(rollout):
        name = f"{rollout.result.task}/{rollout.result.scenario}"
        assert name not in found
        found[name] = rollout.result

    with ServedForLbm(policy or Holds(), benchmark.contract(), seed, None) as served:
        folder = tmp_path / "scratch"
        Drive(find_installation(), served, plans, processes, folder, add, **options).run()
    return found


@pytest.fixture
def lbm(tmp_path, monkeypatch):
    def install(outcomes=None, **told):
        found = Installed(tmp_path, outcomes or {}, **told)
        found.use(monkeypatch)
        return found

    return install


def test_outcomes_are_those_of_its_file_and_a_crash_is_tried_once_more(lbm, tmp_path):
    program = lbm({f"{BOX}/1": "failure", f"{CUP}/0": "crash_once", f"{CUP}/2": "crash"})
    found = played(tmp_path, tasks=(BOX, CUP), processes=2)
    assert {name: one.success for name, one in found.items()} == {
        f"{BOX}/0": True, f"{BOX}/1": False, f"{BOX}/2": True,
        f"{CUP}/0": True, f"{CUP}/1": True, f"{CUP}/2": None,
    }  # fmt: skip
    assert found[f"{BOX}/0"].seconds == 0.5
    assert "line search" in found[f"{CUP}/2"].failure_message
    assert sorted(program.begun[6:]) == [f"{CUP}/0", f"{CUP}/2"]


@pytest.mark.parametrize("outcome", ["die", HANG])
def test_an_episode_that_takes_the_program_down_is_found_and_crashed(lbm, tmp_path, outcome):
    program = lbm({f"{BOX}/1": outcome})
    found = played(tmp_path, stall_seconds=1.5)
    assert [found[f"{BOX}/{n}"].success for n in range(3)] == [True, None, True]
    assert program.begun.count(f"{BOX}/0") == program.begun.count(f"{BOX}/2") == 1


def test_a_program_that_never_plays_anything_is_one_error_with_its_output(lbm, tmp_path):
    program = lbm()
    (program.place / "bin/python").write_text("#!/bin/sh\necho no EGL here; exit 3\n")
    with pytest.raises(FoundryError, match="exit code 3: no EGL here"):
        played(tmp_path)


def test_no_number_is_the_policys_failure_and_what_it_raises_is_raised(lbm, tmp_path):
    program = lbm()
    found = played(tmp_path, Holds(nan=0), count=2)
    assert [one.success for one in found.values()] == [False, True]
    assert "is not finite" in found[f"{BOX}/0"].failure_message
    assert len(program.begun) == 2
    with pytest.raises(ValueError, match="a layer is missing"):
        played(tmp_path / "other", Holds(fails=True))


def test_observations_that_the_policy_cannot_take_end_it_at_once(lbm, tmp_path):
    program = lbm(camera="front")
    with pytest.raises(FoundryError, match="camera 'scene_right_0' is missing"):
        played(tmp_path)
    assert len(program.begun) == len(set(program.begun))  # none was tried once more


def test_noise_is_of_both_seeds(lbm, tmp_path):
    lbm()
    seeds = []
    for n, seed in enumerate((0, 0, 1)):
        policy = Holds()
        played(tmp_path / str(n), policy, count=2, seed=seed)
        seeds.append(sorted(policy.seeds.values()))
    assert seeds[0] == seeds[1] != seeds[2]
    assert len(set(seeds[0])) == 2


def test_a_program_alone_plays_ranges(lbm, tmp_path):
    program = lbm({f"{BOX}/1": "crash_once"}, alone=True)
    found = played(tmp_path)
    assert [one.success for one in found.values()] == [True] * 3
    assert [name[-1] for name in program.begun] == ["0", "1", "2", "0", "1"]
    assert list(load_benchmark("lbm").versions()) == ["lbm_eval"]


def test_a_policy_that_does_not_fit_is_refused_while_planning(lbm):
    lbm()
    benchmark = load_benchmark("lbm")
    with pytest.raises(FoundryError, match="looks through camera 'wrist'"):
        ServedForLbm(Holds(camera="wrist"), benchmark.contract(), 0, None)
    with pytest.raises(FoundryError, match="attribution = 3"):
        Evaluate.check(EvaluateRecipe(benchmark="lbm", attribution=3), {"policy": {"a": None}})
    with pytest.raises(FoundryError, match="pick_and_place_box"):
        Evaluate.check(EvaluateRecipe(benchmark="lbm", tasks=("pick_and_place_bx",)), {})


def test_it_is_known_by_its_wheels(lbm, monkeypatch, tmp_path):
    program = lbm()
    benchmark = load_benchmark("lbm")
    before = benchmark.fingerprints()
    assert benchmark.versions() == {"lbm_eval": "1.1.0rc2", "robot_gym": "1.1.0rc2"}
    record = next(program.place.glob("lib/*/*/lbm_eval-*/RECORD"))
    record.write_text("lbm_eval/evaluate.py,sha256=y,1\n")
    assert benchmark.fingerprints() != before
    monkeypatch.delenv("FOUNDRY_LBM_EVAL")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FoundryError, match="needs LBM Eval, which is not installed"):
        benchmark.fingerprints()
    monkeypatch.setenv("PATH", str(program.place / "bin"))
    assert benchmark.versions()["lbm_eval"] == "1.1.0rc2"


@pytest.mark.slow("episodes that last, to be killed in")
def test_a_killed_evaluation_plays_nothing_twice_and_leaves_nobody_behind(lbm, tmp_path):
    program = lbm({f"{BOX}/{n}": "long" for n in range(2, 6)})
    here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script = here + (
        "from pathlib import Path\n"
        "from test_lbm_benchmark import played\n"
        f"played(Path({str(tmp_path)!r}), count=6)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], env=os.environ)
    until = time.monotonic() + 60
    while time.monotonic() < until and len(program.begun) < 4:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    time.sleep(1.5)  # what was left would go on with its list
    assert program.begun == [f"{BOX}/{n}" for n in range(4)]
    found = played(tmp_path, count=6)
    assert len(found) == 6
    # Only the one that was being played is played again.
    assert program.begun[4:] == [f"{BOX}/{n}" for n in (3, 4, 5)]
    (first, _) = sorted(tmp_path.glob("scratch/start-*/results-*.json"))
    entries = json.loads(first.read_text())["evaluations"]
    assert [one["is_pending"] for one in entries] == [False] * 3 + [True] * 3
