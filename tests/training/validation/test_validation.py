"""Trainings with validation and without, through the stages' own run()."""

import csv
import json
import shutil
from bisect import bisect_right

import numpy as np
import pytest
import torch

from flows.reports.curves import held_out_series
from foundry_core.data.loading.config import RobotData
from foundry_core.data.loading.loader import Loader
from foundry_core.data.loading.pixels import Room
from foundry_core.data.loading.robot import RobotDataset
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.loading.text import TextDataset
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.robot.transforms import collate_robot
from foundry_core.errors import FoundryError
from foundry_core.lineage.records import VALIDATION, committed_event, metric_lines
from foundry_core.models.io import RAW, load_model
from foundry_core.models.noise import Key
from foundry_core.serving.policy import load_policy
from foundry_core.training.validation.held_out import evenly
from tests.synthetic import make_captions, make_robot, make_text
from tests.tasks.training_stages import ROBOT, TRAINING, Bench

NEAREST = ("", ", nearest chunk")
EVERY = {"every": 2, "samples": 5, "best_of": 3}


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    torch.set_num_threads(1)
    bench = Bench(tmp_path_factory.mktemp("stages"))
    for make, name in ((make_text, "text"), (make_captions, "captions"), (make_robot, "robot")):
        make(bench.root / name / "validation", seed=5)
    for name in ("llm", "vlm", "vla"):
        getattr(bench, name)()
    return bench


def validated(bench, name, *, training=None, **changes):
    asked = {**TRAINING, **(training or {}), "validation": {**EVERY, **changes}}
    return bench.vla(name, changes={"training": asked}, resources=CHECKPOINTS)


CHECKPOINTS = {"checkpoint_every_steps": 2, "log_every": 2}


def rows(folder):
    return [json.loads(x) for x in (folder / "records/validation.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def with_it(bench):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    folder, metrics = validated(bench, "with")
    assert torch.equal(torch.get_rng_state(), before)
    return folder, metrics


def test_no_bit_of_the_training_is_another(bench, with_it):
    plain, _ = bench.vla("without", resources={"log_every": 2})
    for name in ("model.safetensors", RAW, "records/metrics.jsonl"):
        assert (with_it[0] / name).read_bytes() == (plain / name).read_bytes(), name
    assert not (plain / "records/validation.jsonl").exists()


def test_rows_say_what_a_person_asks(with_it):
    folder, metrics = with_it
    found = rows(folder)
    assert [row["step"] for row in found] == [0, 2, 4, 6]
    for weights in ("raw", "ema"):
        for name in ("position_mm", "rotation_deg", "gripper"):
            value = found[-1][f"{weights}/robot/{name}"]
            steps = [found[-1][f"{weights}/robot/{name}/{k}"] for k in range(8)]
            assert min(steps) <= value <= max(steps)
            assert found[-1][f"{weights}/robot/robot/{name}"] == value  # its only dataset
            assert found[-1][f"{weights}/robot/best_{name}"] <= value
        assert 0 <= found[-1][f"{weights}/captions/exact"] <= 1
    assert found[-1]["raw/robot/loss"] != found[-1]["ema/robot/loss"]
    assert metrics["final_validation/ema/robot/loss"] == found[-1]["ema/robot/loss"]
    assert not any(name.endswith("/0") for name in metrics)
    timings = json.loads((folder / "records/timings.json").read_text())
    assert 0 < timings["validation_share"] < 1


SHAPE = {"dim": 16, "n_layers": 2, "n_heads": 2, "ffn_dim": 32}
BINS = {"kind": "bins", "bins": 32}
OTHERS = {
    "diffusion": {"kind": "diffusion", **SHAPE, "steps": 4},
    "regression": {"kind": "regression", **SHAPE},
    "act": {"kind": "act", **SHAPE, "latent": 4, "style_layers": 1},
    "bins": BINS,
    "fast": {"kind": "fast", "pieces": 64, "chunks": 40, "temperature": 1.0},
    "pi0": {"kind": "pi0", **SHAPE, "steps": 4},
    "pi0 that speaks": {"kind": "pi0", **SHAPE, "steps": 4, "insulated": True, "tokens": BINS},
}
SAYS_ONE = {"regression", "act", "bins"}


@pytest.mark.slow("trains every head")
@pytest.mark.parametrize("name", OTHERS)
def test_every_head_is_measured_raw_and_averaged(bench, name):
    """Distances by step of the chunk, of weights as they are and of their average."""
    short = {**TRAINING, "steps": 2, "validation": {**EVERY, "every": 1}}
    changes = {"model": {"head": OTHERS[name]}, "training": short}
    folder, _ = bench.vla(f"head {name}", changes=changes, resources={"log_every": 1})
    found = rows(folder)
    assert [row["step"] for row in found] == [0, 1, 2]
    units = {"position_mm": 1e4, "rotation_deg": 180.0, "gripper": 10.0}
    for weights in ("raw", "ema"):
        for unit, most in units.items():
            steps = [found[-1][f"{weights}/robot/{unit}/{k}"] for k in range(8)]
            assert all(0 < value < most for value in steps), (unit, steps)
            whole = found[-1][f"{weights}/robot/{unit}"]
            assert min(steps) <= whole <= max(steps)
            nearest = found[-1][f"{weights}/robot/best_{unit}"]
            assert nearest == pytest.approx(whole) if name in SAYS_ONE else nearest < whole
        assert np.isfinite(found[-1][f"{weights}/robot/loss"])
    assert found[-1]["raw/robot/loss"] != found[-1]["ema/robot/loss"]


def test_a_killed_training_goes_on_to_the_same_bytes(bench, with_it):
    original = Loader.batches

    def short(self, first_step=0, rank=0, world=1):
        for step, batch in enumerate(original(self, first_step, rank, world), start=first_step):
            if step == 5:
                raise KeyboardInterrupt
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "batches", short)
        with pytest.raises(KeyboardInterrupt):
            validated(bench, "cut")
    folder, metrics = validated(bench, "cut")
    assert metrics["resumed_from_step"] == 4
    for name in ("model.safetensors", "records/metrics.jsonl", "records/validation.jsonl"):
        assert (folder / name).read_bytes() == (with_it[0] / name).read_bytes()


def test_measures_are_of_the_weights_that_the_stage_leaves(bench, with_it):
    """By hand: the average's loss and first chunk on the same windows, in metres."""
    folder, metrics = with_it
    policy = load_policy(folder)
    config = RobotData.model_validate(ROBOT)
    shards = CheckedShards(bench.root / "robot" / "validation")
    options = {"train": False, "room": Room(1), "window_bytes": 1}
    held = RobotDataset(shards, config, policy.transform, **options)
    chosen = evenly(5, len(held))
    samples = [held.read(index, 0) for index in chosen]
    batch = {n: torch.from_numpy(t) for n, t in collate_robot(samples, 0).items()}
    names = ("images", "tokens", "token_mask", "proprio", "actions", "action_mask")
    total, count, chunks = policy.model.measure(
        *[batch[name] for name in names], Key(0, 0, torch.tensor(chosen)), draws=3
    )
    loss = float(total.sum()) / float(count)
    assert metrics["final_validation/ema/robot/loss"] == pytest.approx(loss, rel=1e-5)
    field = "robot__action__poses__right::panda__xyz_relative"
    rule = Normalizer.load(folder)[field]
    scale = rule.scale[rule.past :]  # a row for each step from the anchor on
    said, shown = (rule.clipped(one[..., :3].numpy()) for one in (chunks, batch["actions"]))
    apart = ((said - shown) * scale * 1000) ** 2
    valid = batch["action_mask"][..., 0].numpy()
    errors = np.where(valid, apart.sum(-1) ** 0.5, 0)
    mean = errors[0].sum() / valid.sum()
    assert metrics["final_validation/ema/robot/position_mm"] == pytest.approx(mean, rel=1e-4)
    nearest = errors.sum(-1).min(axis=0).sum() / valid.sum()
    assert metrics["final_validation/ema/robot/best_position_mm"] == pytest.approx(
        nearest, rel=1e-4
    )


def test_what_needs_no_training_is_measured_beside_it(bench, with_it):
    """By hand, of the same windows: where the hand and its gripper are now, and stay."""
    folder, metrics = with_it
    policy = load_policy(folder)
    config = RobotData.model_validate(ROBOT)
    shards = CheckedShards(bench.root / "robot" / "validation")
    held = RobotDataset(shards, config, policy.transform, train=False, room=Room(1), window_bytes=1)
    chosen = evenly(5, len(held))
    rules = Normalizer.load(folder)
    way, grip = (config.inputs.action_fields[at] for at in (0, 2))
    far, shut, count = 0.0, 0.0, 0
    for index in chosen:
        window = held.lowdim(index)
        valid = window["action_mask"][:, 0]
        raw = rules.denormalize(way, window["actions"][:, :3].astype(float))
        far += np.linalg.norm(raw, axis=1)[valid].sum() * 1000
        now = rules.denormalize(config.inputs.proprio_fields[2], window["proprio"][0, -1:])
        wanted = rules.denormalize(grip, window["actions"][:, 9:].astype(float))
        apart = abs(wanted - now)[valid] / (2 * rules[grip].scale.max())
        shut, count = shut + apart.sum(), count + valid.sum()
    told = "final_validation/hold/robot"
    assert metrics[f"{told}/position_mm"] == pytest.approx(far / count, rel=1e-4)
    assert metrics[f"{told}/gripper"] == pytest.approx(shut / count, rel=1e-4)
    mean = metrics["final_validation/mean/robot/position_mm"]
    assert 0 < mean != metrics[f"{told}/position_mm"]
    facts = json.loads((folder / "records/held_out.json").read_text())
    windows = [bisect_right(held._ends, index) for index in chosen]
    read = {"samples": 5, "of": len(held), "recordings": len(set(windows))}
    assert facts["read"]["robot"] == {"robot": read}
    assert facts["gripper"] == "range"  # nobody said where it is open
    event, _ = committed_event({"kind": "train_vla"}, folder.joinpath)
    measures = {(row["task"], row["name"]): row for row in event.measure_rows}
    row = measures["validation/mean/robot", "position_mm"]
    assert (row["value"], row["n"]) == (mean, 5)
    last = rows(folder)[-1]["ema/captions/exact"]
    assert measures["validation/ema/captions", "exact"]["value"] == last


def test_the_last_weights_are_validated_too(bench):
    folder, _ = validated(bench, "odd", every=4)
    assert [row["step"] for row in rows(folder)] == [0, 4, 6]


def test_a_training_of_no_steps_is_validated_as_what_others_begin_with(bench, with_it):
    """The untrained policy that a trained one is held against."""
    folder, metrics = validated(bench, "untrained", training={"steps": 0})
    (row,) = rows(folder)
    assert row == rows(with_it[0])[0]
    assert row["step"] == 0
    assert row["raw/robot/loss"] == row["ema/robot/loss"]  # nothing was averaged yet
    assert metrics["final_validation/raw/robot/loss"] == row["raw/robot/loss"]
    assert metrics["final_validation/raw/robot/loss"] != rows(with_it[0])[-1]["raw/robot/loss"]


def test_a_rule_does_not_choose_the_weights_it_began_with(bench):
    """A gain that no training makes: the first validation after a step is the best."""
    best = {"measure": "robot/loss", "better": "higher", "least_gain": 1e9, "patience": 2}
    _, metrics = validated(bench, "judged", best=best)
    assert (metrics["best_step"], metrics["steps"]) == (2, 6)
    _, metrics = validated(bench, "judged_none", best=best, training={"steps": 0})
    assert "best_step" not in metrics


def test_keeping_the_best_leaves_its_weights(bench, with_it):
    """The best is the first: what is left are the weights of a training of two steps."""
    best = {"measure": "robot/loss", "better": "higher", "least_gain": 1e9}
    _, metrics = validated(bench, "kept", best=best)
    assert (metrics["best_step"], metrics["steps"]) == (2, 6)
    constant = {"schedule": {"kind": "constant", "warmup": 2}}
    kept, _ = validated(bench, "kept_constant", best=best, training=constant)
    short, _ = validated(bench, "short", training={**constant, "steps": 2})
    assert (kept / "model.safetensors").read_bytes() == (short / "model.safetensors").read_bytes()
    assert (kept / RAW).read_bytes() != (short / RAW).read_bytes()


def test_patience_ends_the_training(bench):
    best = {"measure": "robot/loss", "better": "higher", "least_gain": 1e9, "patience": 1}
    folder, metrics = validated(bench, "ended", best=best)
    assert (metrics["best_step"], metrics["steps"]) == (2, 4)
    assert [row["step"] for row in rows(folder)] == [0, 2, 4]
    shutil.rmtree(folder)  # a start that finds the end in its checkpoint
    again, metrics = validated(bench, "ended", best=best)
    assert (metrics["best_step"], metrics["steps"]) == (2, 4)
    assert [row["step"] for row in rows(again)] == [0, 2, 4]


def test_an_unknown_measure_is_one_error(bench):
    best = {"measure": "robot/position"}
    with pytest.raises(FoundryError, match=r"'robot/position' is not measured.*") as caught:
        validated(bench, "unknown", best=best)
    assert "robot/position_mm" in caught.value.hint


def test_no_validation_side_is_one_error(bench, tmp_path):
    other = Bench(tmp_path)
    recipe = {
        "model": {"kind": "transformer", "dim": 16, "n_layers": 1, "n_heads": 2},
        "data": {"text": {"batch_size": 8}},
        "training": {**TRAINING, "validation": {}},
    }
    with pytest.raises(
        FoundryError, match="no dataset of this training was converted with a split"
    ):
        other.stage("llm", "train_llm", recipe, {"text": "text", "tokenizer": "tokenizer"})


def test_loss_of_text_is_the_models(bench):
    recipe = {
        "model": {"kind": "transformer", "dim": 16, "n_layers": 1, "n_heads": 2},
        "data": {"text": {"batch_size": 8}},
        "training": {**TRAINING, "ema": None, "z_loss": 0.1, "validation": {"samples": 50}},
    }
    inputs = {"text": "text", "tokenizer": "tokenizer"}
    folder, metrics = bench.stage("llm_z", "train_llm", recipe, inputs)
    model, _ = load_model(folder)
    shards = CheckedShards(bench.root / "text" / "validation")
    held = TextDataset(shards, eos_id=0, vocab_size=258)
    total, count = 0.0, 0
    for index in range(len(held)):  # documents of their own: each alone, without packing
        row = held.read(index, 0)["tokens"].astype("int64").tolist()
        ends = [at + 1 for at, token in enumerate(row) if token == 0]
        for first, last in zip([0, *ends], [*ends, len(row)], strict=True):
            tokens = torch.tensor([row[first:last]])
            if tokens.shape[1] > 1:
                with torch.no_grad():
                    logits = model.eval()(tokens[:, :-1])
                likely = logits.log_softmax(-1).gather(2, tokens[:, 1:, None])
                total, count = total - float(likely.sum()), count + tokens.shape[1] - 1
    assert metrics["final_validation/raw/text/loss"] == pytest.approx(total / count, rel=1e-5)


def test_its_curve_is_in_the_lineage_the_report_and_trackers(bench, with_it):
    folder, _ = with_it
    event, problems = committed_event({"kind": "train_vla"}, folder.joinpath)
    assert not problems
    points = {
        row["step"]: row["value"]
        for row in event.metric_rows
        if row["name"] == "validation/ema/robot/position_mm"
    }
    assert points == {row["step"]: row["ema/robot/position_mm"] for row in rows(folder)}
    shown = held_out_series(metric_lines(folder.joinpath, VALIDATION))
    assert shown["robot position_mm"]["ema"] == list(points.items())
    assert set(shown["robot position_mm"]) == {f"{w}{n}" for w in ("raw", "ema") for n in NEAREST}
    assert "captions exact" in shown
    table = bench.root / "rows.csv"
    sinks = {"log_every": 4, "sinks": [{"kind": "csv", "path": str(table)}]}
    training = {**TRAINING, "validation": EVERY}
    bench.vla("tracked", changes={"training": training}, resources=sinks)
    with table.open() as stream:
        tracked = {int(row["step"]): row for row in csv.DictReader(stream)}
    assert {
        step: float(row["validation/ema/robot/position_mm"]) for step, row in tracked.items()
    } == (pytest.approx(points))
    assert [bool(row["loss"]) for row in tracked.values()] == [False, False, True, True]
