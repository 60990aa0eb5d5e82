"""Rollouts: independent of env workers and processes, replanning exactly, honest about crashes."""

import io
import math
import re

import av
import numpy as np
import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import load_benchmark
from foundry_core.evaluation.rollout.env_workers import EnvWorker
from foundry_core.evaluation.rollout.episodes import EpisodePlan, plan_episodes, run_episodes
from foundry_core.evaluation.rollout.video import encode_video
from foundry_core.parallel import ray_session
from foundry_core.simulation import catalog
from foundry_core.simulation.collection import CollectDemosRecipe, CollectJob
from foundry_core.simulation.config import DEFAULT_TASKS
from foundry_core.simulation.demonstrations import record
from tests.evaluation.toy_benchmark import FIELD, MEASURED, Line, LineEnvironment, Walker


@pytest.fixture(autouse=True)
def _fresh():
    LineEnvironment.struck.clear()


def plans(benchmark: Line, count: int = 6, **changes) -> list[EpisodePlan]:
    settings = {"first": 0, "count": count, "seed": 3}
    return plan_episodes(benchmark, ("near", "far"), **(settings | changes))


def test_results_are_the_same_for_any_number_of_env_workers():
    benchmark = Line()
    results = [
        run_episodes(benchmark, Walker(), plans(benchmark), env_workers=n) for n in (1, 3, 12)
    ]
    assert results[0] == results[1] == results[2]
    assert {r.success for r in results[0]} == {True, False}
    assert [(r.task, r.scenario) for r in results[0]] == [
        (task, i) for task in ("near", "far") for i in range(6)
    ]
    assert LineEnvironment.opened == 0


def test_waiting_observations_share_one_forward_pass():
    policy = Walker()
    run_episodes(Line(), policy, plans(Line()), env_workers=4)
    assert max(policy.batches) == 4
    alone = Walker()
    run_episodes(Line(), alone, plans(Line()), env_workers=1)
    assert set(alone.batches) == {1}


def begun(workers: int, count: int = 6) -> tuple[list[list[str]], int]:
    """(tasks of each worker's episodes in their order, environments that were made)."""

    class Noting(Line):
        def environment(self, task):
            made.append(task)
            return super().environment(task)

    made, played = [], {}
    start = EnvWorker.start

    def noting(self, scenario, record):
        played.setdefault(id(self), []).append(scenario.task.name)
        return start(self, scenario, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EnvWorker, "start", noting)
        benchmark = Noting()
        run_episodes(benchmark, Walker(noise=0.0), plans(benchmark, count), env_workers=workers)
    return list(played.values()), len(made)


def test_a_worker_keeps_to_its_task():
    assert begun(1) == ([["near"] * 6 + ["far"] * 6], 2)
    (near, far), made = begun(2)
    assert near[:6] == ["near"] * 6  # the far one takes longer, so that it is helped in the end
    assert set(far) == {"far"}
    assert len(near) + len(far) == 12
    assert made <= 3
    tasks, _ = begun(4)
    assert [one[0] for one in tasks] == ["near", "far", "near", "far"]


@pytest.mark.parametrize("execute", [1, 3])
def test_it_asks_again_after_exactly_execute_steps(execute):
    policy = Walker(noise=0.0, execute_steps=execute)
    (plan,) = plan_episodes(Line(), ["far"], first=0, count=1, seed=0)
    (result,) = run_episodes(Line(), policy, [plan])
    assert result.success
    assert policy.clients[plan.client][1] == math.ceil(result.steps / execute)
    assert policy.seen[plan.client][1] == pytest.approx(execute)


def test_recipe_overrides_the_policys_execute_steps():
    policy = Walker(noise=0.0, execute_steps=1)
    (plan,) = plan_episodes(Line(), ["far"], first=0, count=1, seed=0)
    run_episodes(Line(), policy, [plan], execute_steps=4)
    assert policy.seen[plan.client][1] == pytest.approx(4)


def test_an_episode_ends_at_success_or_at_the_step_limit():
    lazy = run_episodes(Line(), Walker(speed=0.0), plans(Line(), 2))
    assert [(r.success, r.steps, r.seconds) for r in lazy] == [
        (False, 12, 1.2),
        (False, 12, 1.2),
        (False, 30, 3.0),
        (False, 30, 3.0),
    ]
    quick = run_episodes(Line(), Walker(noise=0.0), plans(Line(), 2))
    assert all(r.success and r.steps < 15 for r in quick)


def test_a_fault_is_retried_on_the_same_scenario_with_the_same_seed():
    sound = run_episodes(Line(), Walker(), plans(Line()))
    mended = run_episodes(Line(faults={2: 1}), Walker(), plans(Line()), env_workers=2)
    assert mended == sound


def test_a_lasting_fault_is_a_crash_with_its_traceback_and_no_failure():
    results = run_episodes(Line(faults={2: 9}), Walker(), plans(Line()))
    crashed = [r for r in results if r.crashed]
    assert [(r.task, r.scenario) for r in crashed] == [("near", 2), ("far", 2)]
    assert all(r.success is None and not r.pending for r in crashed)
    assert "Traceback" in crashed[0].failure_message
    assert crashed[0].failure_message.endswith("ArithmeticError: the line is broken\n")
    sound = run_episodes(Line(), Walker(), plans(Line()))
    assert [r for r in results if not r.crashed] == [r for r in sound if r.scenario != 2]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({FIELD: np.full((4, 1), np.nan)}, "not finite"),
        ({FIELD: np.zeros((4, 2))}, r"has shape \(2,\), not \[1\]"),
        ({FIELD: np.zeros(4)}, "has shape"),
        ({"other": np.zeros((4, 1))}, f"commands no {FIELD}"),
    ],
)
def test_what_cannot_be_carried_out_is_the_policys_failure(answer, message):
    """It would leave the denominator as a crash, and the policy would look better for it."""

    class Broken(Walker):
        def _answer(self, client, observation):
            return answer if len(self.seen[client]) else super()._answer(client, observation)

    results = run_episodes(Line(), Broken(), plans(Line(), 2, record=1), env_workers=2)
    assert [r.success for r in results] == [False] * 4
    assert all(re.search(message, r.failure_message) for r in results)
    assert [r.steps for r in results] == [2] * 4


def test_an_error_of_the_policy_is_raised():
    class Broken(Walker):
        def infer(self, requests):
            raise KeyError("weights")

    with pytest.raises(KeyError, match="weights"):
        run_episodes(Line(), Broken(), plans(Line(), 1))
    assert LineEnvironment.opened == 0


def test_pictures_of_the_chosen_episodes_only_and_they_change_nothing():
    kept = {}

    def keep(rollout):
        if rollout.filmstrip is not None:
            kept[rollout.result.task, rollout.result.scenario] = rollout

    recorded = run_episodes(Line(), Walker(), plans(Line(), record=2), on_rollout=keep)
    assert sorted(kept) == [("far", 0), ("far", 1), ("near", 0), ("near", 1)]
    assert kept["near", 0].filmstrip[:4] == b"\x89PNG"
    assert kept["near", 0].video[4:8] == b"ftyp"
    assert recorded == run_episodes(Line(), Walker(), plans(Line()))


def test_failures_keep_a_video_and_every_recorded_episode_its_numbers(tmp_path):
    kept = {}
    wanted = plan_episodes(
        Line(), ("near", "far"), first=0, count=6, seed=0, record=1, record_failures=True
    )
    results = run_episodes(
        Line(), Walker(noise=3.0), wanted, on_rollout=lambda one: kept.update({one.result.key: one})
    )
    assert {True, False} == {result.success for result in results}
    for result in results:
        one, chosen = kept[result.key], result.scenario == 0
        assert (one.filmstrip is not None) == chosen
        assert (one.video is not None) == (chosen or not result.success)
        assert (one.track is None) == (one.video is None)
    one = next(one for one in kept.values() if one.video and not one.result.success)
    with av.open(io.BytesIO(one.video)) as video:
        (stream,) = video.streams
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(stream)]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", 10)
    # One before the first step, one after each, one second held.
    assert len(frames) == 1 + one.result.steps + 10
    with np.load(io.BytesIO(one.track)) as track:
        assert set(track) == {f"observed/{MEASURED}", f"commanded/{FIELD}"}
        assert {track[name].shape for name in track} == {(one.result.steps, 1)}
        here, target = track[f"observed/{MEASURED}"], track[f"commanded/{FIELD}"]
    # What the line does with a target.
    np.testing.assert_allclose(here[1:], (here + np.clip(target - here, -1, 1))[:-1])


def test_an_odd_picture_is_padded_to_an_even_video():
    with av.open(io.BytesIO(encode_video([np.zeros((33, 47, 3), np.uint8)] * 3, 20))) as video:
        (stream,) = video.streams.video
        assert (stream.width, stream.height) == (48, 34)


def test_a_policy_may_ask_for_the_steps_before():
    class Remembers(Walker):
        history = 2

        def _answer(self, client, observation):
            past = [float(o["lowdim"]["robot__actual__line"][0]) for o in observation["history"]]
            self.past = [*getattr(self, "past", []), past]
            return super()._answer(client, observation)

    policy = Remembers(noise=0.0, execute_steps=3)
    (plan,) = plan_episodes(Line(), ["far"], first=0, count=1, seed=0)
    run_episodes(Line(), policy, [plan])
    assert policy.past[:3] == [[], [1.0, 2.0], [4.0, 5.0]]
    slow = Remembers(noise=0.0, execute_steps=1)
    run_episodes(Line(), slow, [plan])
    assert slow.past[:4] == [[], [0.0], [0.0, 1.0], [1.0, 2.0]]


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [("cameras", ("ear",), "ear"), ("hz", 16.0, "16 Hz"), ("execute_steps", 9, "9 are to be")],
)
def test_a_policy_that_does_not_fit_is_refused(attribute, value, reason):
    policy = Walker()
    setattr(policy, attribute, value)
    with pytest.raises(FoundryError, match=reason):
        run_episodes(Line(), policy, plans(Line(), 1))


def test_policy_seeds_depend_on_seed_task_and_scenario():
    seeds = [p.seed for seed in (0, 1) for p in plans(Line(), seed=seed)]
    assert len(set(seeds)) == len(seeds) == 24
    assert seeds[:12] == [p.seed for p in plans(Line(), seed=0)]
    assert all(0 <= seed < 2**32 for seed in seeds)


class Replay:
    """Commands recorded targets, whatever it sees."""

    execute_steps = 3
    cameras = ("workspace", "wrist")
    hz = catalog.CONTROL_HZ

    def __init__(self, recorded):
        self.recorded = recorded
        self.at = {}

    def reset(self, client, seed):
        self.at[client] = 0

    def infer(self, requests):
        answers = []
        for client, _ in requests:
            task, scenario, _ = client.split("/")
            fields = self.recorded[task, int(scenario)]
            steps = np.arange(self.at[client], self.at[client] + 8)
            self.at[client] += self.execute_steps
            answers.append({n: v[np.minimum(steps, len(v) - 1)] for n, v in fields.items()})
        return answers


class Still(Replay):
    """Keeps the hand where it first sees it."""

    def infer(self, requests):
        return [
            {
                catalog.ACTION_XYZ: np.repeat(o["lowdim"][catalog.XYZ][None], 3, 0),
                catalog.ACTION_ROT6D: np.repeat(o["lowdim"][catalog.ROT6D][None], 3, 0),
                catalog.ACTION_GRIPPER: np.full((3, 1), 0.1),
            }
            for _, o in requests
        ]


def recordings(tasks, slots):
    recipe = CollectDemosRecipe(**SMALL, random_start_steps=0, tail_steps=2)
    recorded = {}
    for task in tasks:
        for slot in slots:
            demonstration = record(CollectJob(task=task, slot=slot, seed=0, recipe=recipe))
            fields = {n: demonstration.fields[n] for n in catalog.ACTION_FIELDS}
            recorded[task, demonstration.scenario] = fields
    return recorded


def metaworld_plans(benchmark, keys):
    return [EpisodePlan(scenario=benchmark.scenario(t, i), seed=0) for t, i in keys]


SMALL = {"render": {"size": 32, "supersample": 1}}


def test_metaworld_recorded_targets_succeed_open_loop_and_standing_still_fails():
    recorded = recordings(DEFAULT_TASKS, range(2))
    benchmark = load_benchmark("metaworld", SMALL)
    chosen = metaworld_plans(benchmark, recorded)
    replayed = run_episodes(benchmark, Replay(recorded), chosen, env_workers=2)
    assert [r.success for r in replayed] == [True] * 8
    still = run_episodes(benchmark, Still(recorded), chosen[:1])
    assert [(r.success, r.steps) for r in still] == [(False, 100)]


@pytest.mark.slow("env workers in processes, each with a simulator")
def test_processes_give_what_this_process_gives_and_survive_a_death():
    recorded = recordings(DEFAULT_TASKS[:2], range(4))
    benchmark = load_benchmark("metaworld", SMALL)
    chosen = metaworld_plans(benchmark, recorded)
    with ray_session(2):
        remote = run_episodes(benchmark, Replay(recorded), chosen, processes=2, env_workers=3)
        killing = Line(kills=(1,))
        results = run_episodes(killing, Walker(), plans(killing, 3), processes=2)
    assert remote == run_episodes(benchmark, Replay(recorded), chosen)
    sound = run_episodes(Line(), Walker(), plans(Line(), 3))
    assert [r.scenario for r in results if r.crashed] == [1, 1]
    assert [r for r in results if not r.crashed] == [r for r in sound if r.scenario != 1]
