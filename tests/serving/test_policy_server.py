"""The serving core: exact replanning, batches, seeds, clients that harm only themselves."""

import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from served import SEEN, TOLD, Foretold, adapter_of, observed, server_of

from foundry_core.data.contract.fields import FieldContract
from foundry_core.errors import FoundryError
from foundry_core.serving.chunks import ChunkPlayer, mean_rotation
from foundry_core.serving.options import ChunkOptions, ServingOptions
from foundry_core.serving.stand_ins import NullPolicy, WavePolicy, stand_in_contract


def play(server, client, steps, first=0.0):
    """The target of each step; step t observes first + t."""
    return [
        float(server.step(client, observed(first + t)).result(10)[TOLD][0]) for t in range(steps)
    ]


@pytest.mark.parametrize("execute", [1, 3, 4, 8])
@pytest.mark.parametrize("steps", [1, 4, 9])
def test_m_steps_take_exactly_the_inferences_they_need_and_the_first_at_once(execute, steps):
    policy = Foretold(execute)
    with server_of(policy) as server:
        server.reset("a", 3, adapter_of(policy))
        found = play(server, "a", steps)
    assert sum(policy.batches) == math.ceil(steps / execute)
    assert policy.observed == [float(t) for t in range(0, steps, execute)]
    assert found == [3000 + 100 * (t // execute) + t % execute for t in range(steps)]


def test_execute_steps_can_be_served_otherwise_and_not_beyond_what_is_predicted():
    policy = Foretold(4)
    with server_of(policy, chunks={"execute_steps": 2}) as server:
        server.reset("a", 0, adapter_of(policy))
        assert play(server, "a", 4) == [0, 1, 100, 101]
    with pytest.raises(FoundryError, match="execute_steps = 9 exceeds the 8 steps"):
        ChunkPlayer(ChunkOptions(execute_steps=9), policy.contract)


def test_interleaved_clients_act_as_each_does_alone_and_share_batches():
    policy = Foretold(4)
    with server_of(policy, batch_ms=200) as server, ThreadPoolExecutor(8) as pool:
        for seed in range(8):
            server.reset(f"c{seed}", seed, adapter_of(policy))
        found = list(pool.map(lambda seed: play(server, f"c{seed}", 12), range(8)))
    for seed, targets in enumerate(found):
        assert targets == [1000 * seed + 100 * (t // 4) + t % 4 for t in range(12)]
    assert sum(policy.batches) == 24
    assert max(policy.batches) > 1
    assert policy.threads == {"inference"}


def test_one_client_alone_is_not_made_to_wait_for_company():
    policy = Foretold(1)
    with server_of(policy, batch_ms=5000) as server:
        server.reset("a", 0, adapter_of(policy))
        began = time.monotonic()
        play(server, "a", 5)
        assert time.monotonic() - began < 4


def test_a_reset_begins_anew_with_its_seed():
    policy = Foretold(4)
    with server_of(policy) as server:
        for seed in (5, 5, 6):
            server.reset("a", seed, adapter_of(policy))
            assert play(server, "a", 5) == [1000 * seed + k for k in (0, 1, 2, 3, 100)]
        server.forget("a")
        server.reset("b", 0, adapter_of(policy))
        play(server, "b", 1)
        assert len(policy.clients) == 1


@pytest.mark.parametrize(
    ("lowdim", "message"),
    [
        ({}, f"field '{SEEN}' is missing"),
        ({SEEN: np.array([np.nan])}, "is not finite"),
        ({SEEN: np.zeros(2)}, r"has shape \[2\], not \[1\]"),
        ({SEEN: "left"}, "is no numbers"),
    ],
)
def test_a_bad_observation_is_refused_before_it_joins_a_batch(lowdim, message):
    policy = Foretold()
    with server_of(policy) as server:
        server.reset("a", 0, adapter_of(policy))
        with pytest.raises(FoundryError, match=message):
            server.step("a", {**observed(0), "lowdim": lowdim})
        assert play(server, "a", 5) == [0, 1, 2, 3, 100]


def test_who_breaks_a_batch_fails_alone():
    policy = Foretold(1)
    with server_of(policy, batch_ms=300) as server:
        for seed, name in enumerate("abc"):
            server.reset(name, seed, adapter_of(policy))
        values = {"a": 1.0, "b": 666.0, "c": 2.0}
        answers = {name: server.step(name, observed(value)) for name, value in values.items()}
        assert answers["a"].result(10)[TOLD] == 0
        assert answers["c"].result(10)[TOLD] == 2000
        with pytest.raises(FoundryError, match="beast"):
            answers["b"].result(10)
        assert play(server, "b", 1) == [1000]


def test_a_target_that_is_not_finite_is_the_error_of_its_client():
    policy = Foretold(1)
    with server_of(policy) as server:
        server.reset("a", 0, adapter_of(policy))
        with pytest.raises(FoundryError, match=f"'{TOLD}' is not finite"):
            server.step("a", observed(667)).result(10)
        assert len(play(server, "a", 2)) == 2


def test_a_second_request_in_flight_is_refused_and_the_first_is_answered():
    import threading

    policy = Foretold()
    policy.gate = threading.Event()
    with server_of(policy) as server:
        server.reset("a", 0, adapter_of(policy))
        first = server.step("a", observed(0))
        with pytest.raises(FoundryError, match="in flight, and another one came"):
            server.step("a", observed(1))
        policy.gate.set()
        assert first.result(10)[TOLD] == 0
        assert play(server, "a", 1) == [1]


def test_who_begins_anew_or_goes_while_it_waits_gets_a_line():
    import threading

    policy = Foretold()
    policy.gate = threading.Event()
    with server_of(policy) as server:
        server.reset("a", 0, adapter_of(policy))
        first = server.step("a", observed(0))
        server.reset("a", 1, adapter_of(policy))
        with pytest.raises(FoundryError, match="begun anew"):
            first.result(10)
        policy.gate.set()
        assert play(server, "a", 2) == [1000, 1001]
        policy.gate = threading.Event()
        server.reset("a", 1, adapter_of(policy))
        second = server.step("a", observed(0))
        server.forget("a")
        with pytest.raises(FoundryError, match="is gone"):
            second.result(10)
        policy.gate.set()


def test_idle_clients_are_freed_and_told():
    policy = Foretold()
    with server_of(policy, idle_seconds=0.2) as server:
        server.reset("a", 0, adapter_of(policy))
        play(server, "a", 1)
        deadline = time.monotonic() + 10
        while server.knows("a") and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(FoundryError, match=r"never reset, or silent for more than 0\.2 s"):
            server.step("a", observed(0))
        server.reset("b", 0, adapter_of(policy))
        play(server, "b", 1)
        assert len(policy.clients) == 1


def test_too_many_clients_are_refused():
    policy = Foretold()
    with server_of(policy, max_clients=1) as server:
        server.reset("a", 0, adapter_of(policy))
        server.reset("a", 1, adapter_of(policy))
        with pytest.raises(FoundryError, match="1 clients are served"):
            server.reset("b", 0, adapter_of(policy))


def test_stopping_ends_what_waits():
    import threading

    policy = Foretold()
    policy.gate = threading.Event()
    with server_of(policy) as server:
        for name in "ab":
            server.reset(name, 0, adapter_of(policy))
        waiting = [server.step(name, observed(0)) for name in "ab"]
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(0.1)
        policy.gate.set()
        stopping.join(10)
        for one in waiting:
            assert one.exception(10) is None or "stops" in str(one.exception())
        with pytest.raises(FoundryError, match="stops"):
            server.step("a", observed(1))


def test_a_policy_that_looks_back_sees_every_step_in_order():
    policy = Foretold(4, history=2)
    with server_of(policy) as server:
        server.reset("a", 0, adapter_of(policy))
        play(server, "a", 9)
        server.reset("a", 0, adapter_of(policy))
        play(server, "a", 1, first=50)
    assert policy.pasts == [[], [2, 3], [6, 7], []]


def test_with_a_delay_chunks_are_predicted_from_earlier_and_their_past_is_passed_over():
    policy = Foretold(4)
    with server_of(policy, chunks={"delay": 2, "execute_steps": 6}) as server:
        server.reset("a", 0, adapter_of(policy))
        found = play(server, "a", 13)
    assert policy.observed == [0, 4, 10]
    assert found[:6] == [0, 1, 2, 3, 4, 5]
    # Predicted at step 4: its targets 2 and 3 are those of steps 6 and 7, where the chunk before,
    # which ends at step 7, still has a share.
    np.testing.assert_allclose(found[6], (2 / 3) * 6 + (1 / 3) * 102)
    np.testing.assert_allclose(found[7], (1 / 3) * 7 + (2 / 3) * 103)
    assert found[8:12] == [104, 105, 106, 107] or found[8:12] == pytest.approx([104, 105, 106, 107])


def test_with_a_delay_the_robot_goes_on_while_the_policy_thinks():
    import threading

    policy = Foretold(4)
    with server_of(policy, chunks={"delay": 2}) as server:
        server.reset("a", 0, adapter_of(policy))
        assert play(server, "a", 2) == [0, 1]
        policy.gate = threading.Event()
        assert play(server, "a", 2, first=2) == [2, 3]  # nobody waits for the second chunk
        late = server.step("a", observed(4))
        with pytest.raises(TimeoutError):
            late.result(0.1)
        policy.gate.set()
        assert late.result(10)[TOLD].shape == (1,)
    assert policy.observed == [0, 2]


def test_a_delayed_inference_that_failed_is_told_and_made_up_for():
    policy = Foretold(4)
    with server_of(policy, chunks={"delay": 1}) as server:
        server.reset("a", 0, adapter_of(policy))
        assert play(server, "a", 3) == [0, 1, 2]
        assert server.step("a", observed(666)).result(10)[TOLD] == 3
        time.sleep(0.1)
        with pytest.raises(FoundryError, match="beast"):
            server.step("a", observed(4)).result(10)
        (target,) = play(server, "a", 1, first=4)
        assert target == pytest.approx((4 / 5) * 4 + (1 / 5) * 100)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ({"delay": 4}, "delay = 4 is not below execute_steps = 4"),
        ({"delay": 2, "execute_steps": 7}, "need 9 steps ahead, the policy predicts 8"),
    ],
)
def test_delays_that_cannot_be_kept_are_refused(chunks, message):
    with pytest.raises(FoundryError, match=message):
        ChunkPlayer(ChunkOptions(**chunks), Foretold().contract)


def test_an_ensemble_weighs_the_oldest_chunk_most():
    policy = Foretold()
    with server_of(policy, chunks={"ensemble": 0.5, "execute_steps": 1}) as server:
        server.reset("a", 0, adapter_of(policy))
        found = play(server, "a", 3)
    weights = np.exp(-0.5 * np.arange(3))
    # At step 2 chunk p was predicted at step p and says 100 p + (2 - p).
    assert found[0] == 0
    np.testing.assert_allclose(found[2], weights @ [2, 101, 200] / weights.sum())


def test_the_mean_of_two_rotations_lies_half_way():
    turns = Rotation.from_euler("z", [[20], [60]], degrees=True)
    for form, values in (
        ("rot6d_rows", turns.as_matrix()[:, :2].reshape(2, 6)),
        ("axis_angle", turns.as_rotvec()),
        ("quaternion_xyzw", turns.as_quat() * [[1], [-1]]),
    ):
        mean = mean_rotation(values, np.array([0.5, 0.5]), form)
        wanted = Rotation.from_euler("z", 40, degrees=True)
        by_form = {
            "rot6d_rows": wanted.as_matrix()[:2].ravel(),
            "axis_angle": wanted.as_rotvec(),
            "quaternion_xyzw": wanted.as_quat(canonical=True),
        }
        np.testing.assert_allclose(mean, by_form[form], atol=1e-12)


def test_a_gripper_with_hysteresis_changes_only_when_the_target_is_clear():
    policy = Foretold(1)
    with server_of(policy, chunks={"gripper_hysteresis": 0.2}) as server:
        server.reset("a", 0, adapter_of(policy))
        values = [0.9, 0.45, 0.35, 0.2, 0.6, 0.65, 0.75]
        found = [float(server.step("a", observed(v)).result(10)["grip"][0]) for v in values]
    assert found == [1, 1, 1, 0, 0, 0, 1]
    with server_of(Foretold(1)) as server:  # off by default: as it is predicted
        server.reset("a", 0, adapter_of(policy))
        assert server.step("a", observed(0.45)).result(10)["grip"] == pytest.approx(0.45)


def test_latencies_are_counted_by_what_was_waited_for():
    policy = Foretold(4)
    with server_of(policy) as server:
        server.warm_up()
        server.reset("a", 0, adapter_of(policy))
        play(server, "a", 8)
        found = server.stats()
    assert (found["observations"], found["inferences"], found["batches"]) == (8, 2, 2)
    assert {name: one["n"] for name, one in found["latency"].items()} == {
        "policy": 2,
        "planned": 2,
        "carried": 6,
    }
    assert found["latency"]["planned"]["p50_ms"] <= found["latency"]["planned"]["p99_ms"]


def test_the_null_policy_stands_and_the_wave_comes_back():
    contract = stand_in_contract()
    rot = np.array([1.0, 0, 0, 0, 1, 0])
    seen = {
        "images": {},
        "instruction": "",
        "lowdim": {
            "robot__actual__poses__right::panda__xyz": np.array([0.1, 0.2, 0.3]),
            "robot__actual__poses__right::panda__rot_6d": rot,
            "robot__actual__grippers__right::panda_hand": np.array([0.04]),
        },
    }
    wave = WavePolicy(contract)
    wave.reset("a", 0)
    height = np.concatenate(
        [
            wave.infer([("a", seen)])[0]["robot__action__poses__right::panda__xyz"][:, 2]
            for _ in range(4)
        ]
    )
    assert height.max() == pytest.approx(0.32) and height.min() == pytest.approx(0.28)
    assert height[-1] == pytest.approx(0.3)
    (zeros,) = NullPolicy(contract).infer([("a", seen)])
    assert not zeros["robot__action__poses__right::panda__xyz"].any()


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ValueError, match="give one of them"):
        ChunkOptions(ensemble=0.1, delay=1)
    with pytest.raises(ValueError):
        ServingOptions(seed=1 << 32)
    blunt = Foretold()
    field = FieldContract(dims=1, quantity="gripper")
    commands = {**blunt.contract.commands, "grip": field}
    contract = blunt.contract.model_copy(update={"commands": commands})
    with pytest.raises(FoundryError, match="does not say where 'grip' is open"):
        ChunkPlayer(ChunkOptions(gripper_hysteresis=0.1), contract)
