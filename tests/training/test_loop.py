"""The loop on a toy problem: equalities that hold for every objective."""

import json

import pytest
import torch
from training_toy import ToyModel, toy_batches, toy_trainer, weights

from foundry_core.errors import FoundryError


def equal(a, b):
    return all(torch.equal(a[n], b[n]) for n in a)


def run(folder, **changes):
    trainer = toy_trainer(folder, **changes)
    trainer.result = trainer.train()
    return trainer


def rows(trainer):
    return (trainer.records / "metrics.jsonl").read_bytes()


def test_learns_and_logs_deterministic_rows(tmp_path):
    trainer = run(tmp_path / "a", steps=200, training={"optimizer": {"lr": 3e-2}})
    lines = [json.loads(line) for line in rows(trainer).splitlines()]
    assert [line["step"] for line in lines] == list(range(4, 201, 4))
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    assert set(lines[0]) == {"step", "loss", "a_loss", "b_loss", "grad_norm", "lr"}
    assert lines[0]["loss"] == pytest.approx(lines[0]["a_loss"] + 0.5 * lines[0]["b_loss"])
    assert rows(run(tmp_path / "b", steps=200, training={"optimizer": {"lr": 3e-2}})) == rows(
        trainer
    )


@pytest.mark.parametrize("micro_batch", [3, 6])
def test_accumulated_micro_batches_equal_one_big_batch(tmp_path, micro_batch):
    whole = run(tmp_path / "whole")
    parts = run(tmp_path / "parts", resources={"micro_batch": micro_batch})
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, atol=1e-6, rtol=1e-5)


def test_micro_batch_that_divides_no_batch_is_refused(tmp_path):
    with pytest.raises(FoundryError, match="micro_batch=5"):
        run(tmp_path, resources={"micro_batch": 5})


class Killed(Exception):
    pass


def stopping(at):
    def batches(first):
        for step, batch in enumerate(toy_batches(first), start=first):
            if step == at:
                raise Killed
            yield batch

    return batches


@pytest.mark.parametrize("at", [0, 1, 7, 13, 19])
def test_resume_is_bit_exact(tmp_path, at):
    straight = run(tmp_path / "straight")
    every = {"resources": {"checkpoint_every_steps": 3}}
    with pytest.raises(Killed):
        run(tmp_path / "broken", batches=stopping(at), **every)
    resumed = run(tmp_path / "broken", **every)
    assert resumed.result.resumed_from == at // 3 * 3
    assert equal(weights(straight), weights(resumed))
    assert rows(straight) == rows(resumed)


class Dropping(ToyModel):
    def __init__(self):
        super().__init__()
        self.drop = torch.nn.Dropout(0.3)

    def forward(self, x):
        return super().forward(self.drop(x))


def test_dropout_resumes_to_the_bit_and_leaves_the_generator(tmp_path):
    straight = toy_trainer(tmp_path / "straight", model=Dropping())
    before = torch.get_rng_state()
    straight.train()
    assert torch.equal(torch.get_rng_state(), before)
    every = {"resources": {"checkpoint_every_steps": 3}}
    with pytest.raises(Killed):
        run(tmp_path / "broken", batches=stopping(8), model=Dropping(), **every)
    resumed = run(tmp_path / "broken", model=Dropping(), **every)
    assert equal(weights(straight), weights(resumed))
    assert not equal(weights(straight), weights(run(tmp_path / "plain")))
    other = run(tmp_path / "seed", model=Dropping(), seed=4)
    assert not equal(weights(straight), weights(other))


def test_cadences_change_neither_weights_nor_the_average(tmp_path):
    a = run(tmp_path / "a", resources={"log_every": 1, "checkpoint_every_steps": 1})
    b = run(tmp_path / "b", resources={"log_every": 7})
    assert equal(weights(a), weights(b))


def test_average_is_what_remains(tmp_path):
    averaged = run(tmp_path / "a", training={"ema": {"kind": "fixed", "decay": 0.999}})
    live = run(tmp_path / "b", training={"ema": None})
    start = dict(ToyModel().named_parameters())
    for name, value in weights(averaged).items():
        assert (value - start[name]).norm() < 0.1 * (weights(live)[name] - start[name]).norm()


def test_zero_steps_keep_the_initial_weights(tmp_path):
    trainer = run(tmp_path, steps=0)
    assert equal(weights(trainer), weights(toy_trainer(tmp_path)))
    assert rows(trainer) == b""


def poisoned(first):
    for step, batch in enumerate(toy_batches(first), start=first):
        if step in (4, 5):
            batch["a"]["y"] = batch["a"]["y"] * float("nan")
        yield batch


def test_non_finite_loss_stops_and_names_the_samples(tmp_path):
    with pytest.raises(FoundryError, match=r"at step 4.*\"a\": \[32, 33, "):
        run(tmp_path, batches=poisoned)


def test_non_finite_updates_are_skipped_up_to_the_bound(tmp_path):
    allowed = {"policy": "skip", "max_skips": 2}
    trainer = run(tmp_path / "a", batches=poisoned, training={"non_finite": allowed})
    assert trainer.result.skipped == 2
    assert all(torch.isfinite(w).all() for w in weights(trainer).values())
    with pytest.raises(FoundryError, match="max_skips=1"):
        run(
            tmp_path / "b",
            batches=poisoned,
            training={"non_finite": {"policy": "skip", "max_skips": 1}},
        )


def test_data_that_ends_early_is_an_error(tmp_path):
    with pytest.raises(FoundryError, match="ended at step 3 of 20"):
        run(
            tmp_path,
            batches=lambda first: [b for b, _ in zip(toy_batches(0), range(3), strict=False)],
        )
