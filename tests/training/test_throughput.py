"""What a training says of its speed: rates by hand, MFU by its formula, rows that resume."""

import dataclasses
import json

import pytest
import torch
from model_zoo import build, language_config, robot_batch, vla_config
from test_compile import CAPTIONS, ROBOT, TEXT
from test_objectives import caption_batch, text_batch
from training_toy import ToyModel, toy_batches, toy_trainer

from foundry_core.models.build import build_model
from foundry_core.models.config import TransformerConfig
from foundry_core.models.presets import load_preset
from foundry_core.training.distributed import World
from foundry_core.training.flops import counted_flops, language_flops, on_meta, step_flops
from foundry_core.training.peaks import peak_of
from foundry_core.training.throughput import Throughput


def read(folder, name="throughput") -> list[dict]:
    return [json.loads(x) for x in (folder / f"records/{name}.jsonl").read_text().splitlines()]


def test_rates_waits_and_time_left(tmp_path):
    now = [100.0]

    def batches():
        while True:
            now[0] += 0.5
            yield {"text": {"tokens": torch.zeros(4, 10)}, "robot": {"x": torch.zeros(2, 3)}}

    rates = Throughput(tmp_path / "t.jsonl", World(), 10, clock=lambda: now[0])
    rates.know_flops(3e12, 12e12)
    for step, _ in zip(range(4), rates.timed(batches()), strict=False):
        now[0] += 1.25
        if step == 2:
            with rates.saving():
                now[0] += 1.0
        if step == 3:
            row = rates.write_row(4)
    assert row == {
        "seconds": 8.0,
        "steps_per_second": 0.5,
        "samples_per_second": 3.0,
        "tokens_per_second": 20.0,
        "data_wait_seconds": 2.0,
        "data_wait_share": 0.25,
        "checkpoint_seconds": 1.0,
        "seconds_left": 12.0,
        "tflops_per_second": 1.5,
        "mfu": 0.125,
    }
    assert rates.write_row(4) == {}
    overall = rates.overall()
    assert overall["samples_per_second"] == 3.0
    assert overall["mfu"] == 0.125


def test_a_resumed_training_keeps_the_rows_it_resumes_after(tmp_path):
    def stopping(first):
        for step, batch in enumerate(toy_batches(first), start=first):
            if step == 14:
                raise KeyboardInterrupt
            yield batch

    resources = {"checkpoint_every_steps": 5, "log_every": 2}
    with pytest.raises(KeyboardInterrupt):
        toy_trainer(tmp_path, batches=stopping, resources=resources).train()
    scratch = tmp_path / "scratch" / "throughput.jsonl"
    before = scratch.read_text().splitlines()
    assert json.loads(before[-1])["step"] == 14  # the checkpoint is at 10
    scratch.write_text("\n".join(before) + '\n{"step": 1')  # torn by the kill
    toy_trainer(tmp_path, resources=resources).train()
    rows = read(tmp_path)
    assert [row["step"] for row in rows] == [*range(2, 21, 2)]
    assert [json.dumps(row) for row in rows[:5]] == [json.dumps(json.loads(x)) for x in before[:5]]
    assert all(row["samples_per_second"] > 0 for row in rows)
    assert "mfu" not in rows[0]
    timings = json.loads((tmp_path / "records/timings.json").read_text())
    assert timings["flops"].startswith("no MFU: the device's peak is not known")


def test_progress_says_how_fast_and_how_long(tmp_path):
    seen = []
    toy_trainer(tmp_path, progress=lambda *a, **values: seen.append(values)).train()
    assert {"loss", "samples_per_second", "seconds_left"} <= set(seen[-1])


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_peaks_by_name(name, tflops):
    assert peak_of(name) == (tflops and tflops * 1e12)


def test_the_formula_for_the_1b_preset():
    """1,439,895,552 parameters, 50,432 look-ups of width 2048 left out; 24 layers of 16 × 128."""
    config = load_preset("llm_1b")
    assert isinstance(config, TransformerConfig)
    with torch.device("meta"):
        model = build_model(config)
    active = 1_439_895_552 - 50_432 * 2048
    assert language_flops(model, 2048) == 6 * active + 12 * 24 * 16 * 128 * 2048
    assert language_flops(build(vla_config()), 8) is None


def test_formula_and_counter_agree_on_a_language_model():
    """Norms and biases are the difference: they are parameters that no product reads."""
    model, batch = build(language_config()), text_batch()
    formula, how = step_flops(model, {"text": TEXT}, batch={"text": batch})
    assert how == "6 N + 12 L H Q T per token"
    # The counter counts logits of rows with a target alone; here 37 of 40 have one.
    counted = counted_flops(model, {"text": TEXT}, {"text": batch}).get_total_flops()
    assert 0.97 < counted / formula < 1.0


def test_a_policys_step_is_counted_without_doing_it():
    model = build(vla_config())
    batch = {"robot": robot_batch([4, 4]), "captions": caption_batch()}
    objectives = {"robot": ROBOT, "captions": CAPTIONS}
    flops, how = step_flops(model, objectives, batch)
    assert how.startswith("counted")
    twice = {m: {n: torch.cat((t, t)) for n, t in part.items()} for m, part in batch.items()}
    assert step_flops(model, objectives, twice)[0] == 2 * flops
    assert all(p.grad is None and not p.is_meta for p in model.parameters())
    assert all(p.is_meta for p in on_meta(model).parameters())


def test_a_blind_policys_step_is_counted_too():
    """On the meta device nothing can count how many placeholders a row loses."""
    model, batch = build(vla_config(use_images=False)), robot_batch([4, 3])
    blind = dataclasses.replace(ROBOT, sees=False)
    flops, _ = step_flops(model, {"robot": blind}, {"robot": batch})
    seeing, _ = step_flops(build(vla_config()), {"robot": ROBOT}, {"robot": batch})
    assert 0 < flops < seeing / 2  # 8 of at most 13 tokens, and the tower


def test_a_run_with_a_known_peak_says_its_mfu(tmp_path):
    from foundry_core.training.config import TrainingConfig, TrainResources
    from foundry_core.training.loop import Trainer

    def batches(first):
        while True:
            yield {"text": text_batch()}

    resources = {"log_every": 1, "peak_tflops": 1e-6, "part_norms": True, "recompute": ["language"]}
    trainer = Trainer(
        model=build(language_config()),
        objectives={"text": TEXT},
        batches=batches,
        config=TrainingConfig(steps=2),
        total_steps=2,
        seed=0,
        resources=TrainResources(**resources),
        scratch=tmp_path / "scratch",
        records=tmp_path / "records",
        progress=lambda *a, **k: None,
    )
    trainer.train()
    flops = language_flops(trainer.model, 10) * 40
    for row in read(tmp_path):
        assert row["mfu"] == pytest.approx(flops * row["steps_per_second"] / 1e6)
        assert row["tokens_per_second"] == pytest.approx(44 * row["steps_per_second"])
    for row in read(tmp_path, "metrics"):
        assert row["grad_norm_language"] == pytest.approx(row["grad_norm"], rel=1e-6)


def test_a_model_that_looks_at_values_trains_without_mfu(tmp_path):
    """Many models of transformers check their inputs so: nothing can be counted without values."""

    class Looks(ToyModel):
        def forward(self, x):
            return super().forward(x) * bool(x.isfinite().all())

    toy_trainer(tmp_path, model=Looks(), resources={"peak_tflops": 1.0}).train()
    assert "mfu" not in read(tmp_path)[0]
    timings = json.loads((tmp_path / "records/timings.json").read_text())
    assert timings["flops"].startswith("no MFU: its products cannot be counted (Tensor.item")


def test_the_reports_means_weigh_by_seconds():
    from flows.reports.run_report import throughput_cells

    lines = [
        {"step": 4, "seconds": 1.0, "samples_per_second": 10.0, "mfu": 0.5, "data_wait_share": 0.0},
        {"step": 8, "seconds": 3.0, "samples_per_second": 2.0, "mfu": 0.1, "data_wait_share": 0.2},
    ]
    assert throughput_cells(lines) == ["4.0", "", "20.0", "15.0", ""]


def test_lineage_takes_the_rows_by_a_name_of_their_own(tmp_path):
    from foundry_core.lineage.records import committed_event

    toy_trainer(tmp_path).train()
    event, problems = committed_event({}, tmp_path.joinpath)
    names = {row["name"] for row in event.metric_rows}
    assert {"loss", "throughput/samples_per_second"} <= names
    assert problems == ()
