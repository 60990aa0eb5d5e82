"""What budgets share, and that going on from it is a straight run to the bit: a toy problem."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_loop import Killed, equal, rows, run, stopping
from training_toy import ToyModel, weights

from foundry_core.errors import FoundryError
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.stage import Begin
from foundry_core.pipeline.trunks import step_name
from foundry_core.training.checkpoint import CheckpointFolder
from foundry_core.training.config import ScheduleConfig, TrainResources
from foundry_core.training.distributed import World
from foundry_core.training.optim import lr_multiplier
from foundry_core.training.saving import Saver
from foundry_core.training.trunk import shared_schedule, trunk_of

CONSTANT = {"kind": "constant", "warmup": 3}
WSD = {"kind": "wsd", "warmup": 3, "decay_fraction": 0.25}
COSINE = {"kind": "cosine", "warmup": 3, "length": 40}


@pytest.mark.parametrize(
    ("schedule", "total", "steps"),
    [
        (CONSTANT, 100, 100),
        (WSD, 100, 75),
        ({**WSD, "warmup": 90}, 100, 90),
        ({**WSD, "decay_fraction": 1.0}, 100, 3),
        ({"kind": "cosine", "warmup": 3}, 100, 0),
        (COSINE, 100, 100),
        ({**WSD, "length": 100}, 60, 60),
    ],
)
def test_how_many_steps_budgets_share(schedule, total, steps):
    assert shared_schedule(ScheduleConfig(**schedule), total)[1] == steps


SCHEDULES = st.builds(
    lambda **values: ScheduleConfig(**{k: v for k, v in values.items() if v is not None}),
    kind=st.sampled_from(["cosine", "wsd", "constant"]),
    warmup=st.integers(0, 20),
    min_ratio=st.sampled_from([0.0, 0.1]),
    decay_fraction=st.sampled_from([0.1, 0.5, 1.0]),
)


@given(SCHEDULES, st.one_of(st.none(), st.integers(1, 60)), st.integers(1, 80), st.integers(1, 80))
def test_shared_steps_have_equal_rates(schedule, length, small, large):
    if length is not None and schedule.kind != "constant":
        schedule = ScheduleConfig(**{**schedule.model_dump(), "length": length})
    small, large = sorted((small, large))
    _, steps = shared_schedule(schedule, small)
    assert steps <= small
    for step in range(steps):
        assert lr_multiplier(schedule, step, small) == lr_multiplier(schedule, step, large)


@given(st.integers(0, 20), st.integers(1, 80), st.integers(1, 80), st.sampled_from([0.1, 0.5]))
def test_wsd_goes_on_from_constant_and_back(warmup, total, more, fraction):
    held = ScheduleConfig(kind="constant", warmup=warmup)
    falls = ScheduleConfig(kind="wsd", warmup=warmup, decay_fraction=fraction)
    family, steps = shared_schedule(held, total)
    other, more_steps = shared_schedule(falls, more)
    assert family == other
    for step in range(min(steps, more_steps)):
        assert lr_multiplier(held, step, total) == lr_multiplier(falls, step, more)


def test_a_stated_length_is_where_the_rate_ends():
    schedule = ScheduleConfig(kind="cosine", warmup=10, min_ratio=0.1, length=100)
    at = [lr_multiplier(schedule, step, 500) for step in (0, 9, 55, 100, 400)]
    assert at == pytest.approx([0.1, 1.0, 0.55, 0.1, 0.1])
    with pytest.raises(ValueError, match="a constant rate does not fall"):
        ScheduleConfig(kind="constant", length=3)


RECIPE = {
    "model": {"dim": 16, "n_layers": 1, "n_heads": 2, "context": 32},
    "data": {"text": {"batch_size": 8}},
    "training": {"steps": 100, "schedule": WSD},
}


def recipe(**changes):
    training = {**RECIPE["training"], **changes}
    if "tokens" in changes or "samples" in changes:
        del training["steps"]
    return stage_kind("train_llm").Recipe.model_validate({**RECIPE, "training": training})


def trunk(recipe, total=100, **resources):
    return trunk_of(recipe, TrainResources(**resources), total)


@pytest.mark.parametrize(
    "same",
    [
        {"steps": 7},
        {"tokens": 10**6},
        {"samples": 800},
        {"schedule": {**WSD, "decay_fraction": 0.5, "min_ratio": 0.5}},
        {"schedule": CONSTANT},
    ],
)
def test_budgets_and_falls_are_no_part_of_what_is_shared(same):
    assert trunk(recipe(**same)).recipe == trunk(recipe()).recipe


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": {"lr": 2e-3}},
        {"optimizer": {"betas": (0.9, 0.99)}},
        {"optimizer": {"weight_decay": 0.1}},
        {"clip": 0.5},
        {"ema": {"kind": "power"}},
        {"ema": {"kind": "fixed"}},
        {"precision": "bf16"},
        {"compile": "blocks"},
        {"z_loss": 1e-4},
        {"non_finite": {"policy": "skip"}},
        {"schedule": {**WSD, "warmup": 4}},
        {"schedule": {**WSD, "length": 200}},
    ],
)
def test_all_else_is(other):
    assert trunk(recipe(**other)).recipe != trunk(recipe()).recipe


def test_token_budgets_become_steps_by_the_context_of_the_rows():
    kind = stage_kind("train_llm")
    asked = []

    def fact(*words):
        asked.append(words)
        return 16

    assert kind.steps(recipe(tokens=8 * 16 * 5), fact) == 5
    assert asked == [("text", "context", "dataset.json")]
    assert kind.steps(recipe(tokens=8 * 16 * 5), lambda *words: None) is None
    assert kind.steps(recipe(samples=80), fact) == 10
    with pytest.raises(FoundryError, match="less than one step's 128 tokens"):
        kind.steps(recipe(tokens=100), fact)


def begin(trainer, step):
    """What a larger budget is given of a training that has ended."""
    path = trainer.scratch / "trunks"
    return Begin(path=path, step=step, key="k" * 64, trunk="t" * 64)


def settings(schedule, **more):
    return {"training": {"schedule": schedule}, "ground": "here", **more}


def left(trainer, step):
    return {
        f.name: f.read_bytes() for f in (trainer.scratch / "trunks" / step_name(step)).iterdir()
    }


@pytest.mark.parametrize(
    ("schedule", "small", "step"), [(CONSTANT, 10, 10), (WSD, 12, 9), (COSINE, 13, 13)]
)
@pytest.mark.parametrize("every", [None, 2])
def test_going_on_is_a_straight_run_to_the_bit(tmp_path, schedule, small, step, every):
    """Windows of the log (4 steps) are cut by the smaller budget's end."""
    resources = {"checkpoint_every_steps": every}
    first = run(tmp_path / "a", steps=small, trunk=step, resources=resources, **settings(schedule))
    alone = run(tmp_path / "b", steps=30, trunk=22, **settings(schedule))
    more = run(
        tmp_path / "c",
        steps=30,
        trunk=22,
        begin=begin(first, step),
        resources=resources,
        **settings(schedule),
    )
    assert more.result.resumed_from == step
    assert more.result.metrics()["continued_from_step"] == step
    assert more.result.continued == {"key": "k" * 64, "trunk": "t" * 64, "step": step}
    assert equal(weights(alone), weights(more))
    assert all(torch.equal(alone.ema.shadow[n], more.ema.shadow[n]) for n in alone.ema.shadow)
    assert rows(alone) == rows(more)
    # What both leave for others is equal to the byte, too.
    assert left(alone, 22) == left(more, 22)
    assert json.loads(left(more, 22)["state.json"])["scalars"]["grounds"] == ["here"]


def test_another_recipe_for_the_same_steps_has_nothing_left_to_do(tmp_path):
    """Constant in both: `min_ratio` is in the key and in no rate."""
    first = run(tmp_path / "a", steps=10, trunk=10, **settings(CONSTANT))
    more = run(
        tmp_path / "b",
        steps=10,
        trunk=10,
        begin=begin(first, 10),
        **settings({**CONSTANT, "min_ratio": 0.5}),
    )
    assert more.result.resumed_from == 10
    assert equal(weights(first), weights(more)) and rows(first) == rows(more)
    assert more.result.last == first.result.last


@pytest.mark.parametrize("at", [11, 17, 25])
def test_a_kill_while_going_on_resumes_right(tmp_path, at):
    first = run(tmp_path / "a", steps=12, trunk=9, **settings(WSD))
    alone = run(tmp_path / "b", steps=30, trunk=22, **settings(WSD))
    options = {
        "steps": 30,
        "trunk": 22,
        "begin": begin(first, 9),
        "resources": {"checkpoint_every_steps": 3},
        **settings(WSD),
    }
    with pytest.raises(Killed):
        run(tmp_path / "c", batches=stopping(at), **options)
    resumed = run(tmp_path / "c", **options)
    assert resumed.result.resumed_from == max(9, at // 3 * 3)
    assert resumed.result.continued["step"] == 9
    assert equal(weights(alone), weights(resumed)) and rows(alone) == rows(resumed)
    assert left(alone, 22) == left(resumed, 22)


def test_an_attempt_after_the_last_step_goes_on_from_what_it_left(tmp_path):
    """The process was done, and its artifact never came to be."""
    options = {"steps": 30, "trunk": 22, **settings(WSD)}
    first = run(tmp_path / "a", **options)
    again = run(tmp_path / "a", **options)
    assert again.result.resumed_from == 22
    assert equal(weights(first), weights(again)) and rows(first) == rows(again)


def test_its_own_checkpoint_counts_where_it_is_further(tmp_path):
    first = run(tmp_path / "a", steps=12, trunk=9, **settings(WSD))
    every = {"resources": {"checkpoint_every_steps": 3}}
    with pytest.raises(Killed):
        run(tmp_path / "c", steps=30, batches=stopping(14), **every, **settings(WSD))
    options = {"steps": 30, "begin": begin(first, 9), **every, **settings(WSD)}
    more = run(tmp_path / "c", **options)
    assert (more.result.resumed_from, more.result.continued) == (12, None)


def broken(folder, how):
    shard = folder / "shard_00000.safetensors"
    if how == "truncated":
        shard.write_bytes(shard.read_bytes()[:-5])
    elif how == "flipped":
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
    elif how == "no state":
        (folder / "state.json").unlink()
    else:
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps({**state, "step": 8}))


@pytest.mark.parametrize("how", ["truncated", "flipped", "no state", "another step"])
def test_a_damaged_state_is_refused_and_training_begins_at_zero(tmp_path, how, caplog):
    first = run(tmp_path / "a", steps=12, trunk=9, **settings(WSD))
    alone = run(tmp_path / "b", steps=30, **settings(WSD))
    broken(first.scratch / "trunks" / step_name(9), how)
    more = run(tmp_path / "c", steps=30, begin=begin(first, 9), **settings(WSD))
    assert more.result.resumed_from == more.result.metrics()["continued_from_step"] == 0
    assert "the state of kkkkkkkkkkkk after step 9 is not used" in more.result.continued["refused"]
    assert more.result.continued["refused"] in caplog.text
    assert equal(weights(alone), weights(more)) and rows(alone) == rows(more)


def test_the_state_of_another_model_is_refused(tmp_path):
    first = run(tmp_path / "a", steps=12, trunk=9, **settings(WSD))
    model = ToyModel()
    model.extra = torch.nn.Linear(2, 2)
    changed = settings(WSD, model=model)
    more = run(tmp_path / "c", steps=14, begin=begin(first, 9), **changed)
    assert more.result.resumed_from == 0
    assert "tensors differ" in more.result.continued["refused"]


def test_a_state_of_several_grounds_says_so(tmp_path):
    every = {"checkpoint_every_steps": 3}
    with pytest.raises(Killed):
        run(tmp_path / "a", batches=stopping(5), resources=every, **settings(WSD))
    mixed = run(
        tmp_path / "a", trunk=15, resources=every, **{**settings(WSD), "ground": "elsewhere"}
    )
    state = json.loads(left(mixed, 15)["state.json"])
    assert state["scalars"]["grounds"] == ["elsewhere", "here"]


def test_nothing_is_left_that_nobody_can_use(tmp_path):
    trainer = run(tmp_path, steps=10, **settings(WSD))
    assert not (trainer.scratch / "trunks").exists()


def test_the_trunk_outlives_the_checkpoints_after_it(tmp_path):
    saver = Saver(CheckpointFolder(tmp_path), {"w": torch.ones(1)}, World(), trunk=2)
    for step in range(1, 7):
        saver.save(step, {"w": torch.full((1,), float(step))}, {"continued": {"step": 1}})
    saver.finish()
    place = CheckpointFolder(tmp_path)
    assert [step for step, _ in place.known()] == [6, 5, 2]
    assert place.take(2, tmp_path / "left" / "state") and not place.take(3, tmp_path / "other")
    (tmp_path / step_name(6) / "shard_00000.safetensors").write_bytes(b"torn")
    assert not place.take(6, tmp_path / "other") and not (tmp_path / "other").exists()
    state = json.loads((tmp_path / "left" / "state" / "state.json").read_text())
    assert (state["step"], state["scalars"]) == (2, {})
    assert [step for step, _ in place.known()] == [5]
