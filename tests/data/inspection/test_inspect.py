"""What the data commands show."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from foundry_core.data.inspection.check import coverage_table
from foundry_core.data.inspection.figures import (
    describe,
    plot_statistics,
    render_statistics,
)
from foundry_core.data.inspection.preview import preview, render_preview, save_images
from foundry_core.data.inspection.recompute import dataset_statistics
from foundry_core.data.loading.build import build_loader
from foundry_core.data.loading.config import CaptionData, DataConfig, RobotData, TextData
from foundry_core.data.robot.normalize import Normalizer
from foundry_core.data.statistics.dataset import DatasetStatistics, merge_files
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from tests.synthetic import INPUTS


def text_of(renderable) -> str:
    console = Console(width=240, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_recomputed_statistics_equal_the_converters(datasets: dict) -> None:
    folder = datasets["robot"]["lever"]
    stored = json.loads((folder / "stats.json").read_text())
    again = json.loads(dataset_statistics(folder).to_json())
    extra = {f"robot__actual__poses__right::panda__{p}_relative" for p in ("xyz", "rot_6d")}
    assert set(again) - set(stored) == extra
    for entry in (*stored.values(), *again.values()):
        del entry["datasets"]  # with the extra fields it is another leaf
    assert {name: again[name] for name in stored} == stored


def test_description_table_and_plots(datasets: dict, tmp_path: Path) -> None:
    stats = DatasetStatistics.load(datasets["robot"]["lever"])
    gripper = "robot__action__grippers__right::panda_hand"
    description = describe(stats, [gripper])
    assert list(description["fields"]) == [gripper]
    (dim,) = description["fields"][gripper]["dims"]
    assert dim["discrete"] and sum(dim["histogram"]) == pytest.approx(1)
    wide = describe(stats)["fields"]["robot__actual__poses__right::panda__xyz"]["dims"][0]
    assert sum(wide["histogram"]) == pytest.approx(0.98, abs=0.02)
    assert len(json.dumps(description, allow_nan=False)) > 100
    assert gripper in text_of(render_statistics(description))
    (path,) = plot_statistics(stats, tmp_path, [gripper])
    assert path.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(FoundryError, match="no statistics for field"):
        describe(stats, ["nothing"])


def test_what_rounding_left_of_zero_is_zero_in_a_table() -> None:
    """And no other number: neither small ones of a field that is small, nor one that is not."""
    keys = ("mean", "std", "min", *(f"percentile_{q}" for q in (1, 50, 99)), "max")

    def row(*dims: tuple[float, ...]) -> list[list[str]]:
        made = [dict(zip(keys, one, strict=True), discrete=False, histogram=[]) for one in dims]
        field = {"count": 1, "steps": 1, "past": 0, "dims": made}
        found = render_statistics({"weighting": "", "windows": 1, "fields": {"x": field}})
        lines = text_of(found).splitlines()
        first = next(n for n, line in enumerate(lines) if line.split()[:2] == ["dim", "mean"]) + 1
        return [line.split()[1:8] for line in lines[first : first + len(dims)]]

    noise = (-1.7e-18, 1e-17, -3e-17, -0.0, 0.0, 1e-17, 2e-17)
    ones = (0.5, float("nan"), -1.0, -1e-9, 0.5, 0.9, 1.0)
    assert row(noise, ones) == [
        ["0"] * 7, ["0.5", "nan", "-1", "-1e-09", "0.5", "0.9", "1"],
    ]  # fmt: skip
    assert row(noise)[0][:3] == ["-1.7e-18", "1e-17", "-3e-17"] and row(noise)[0][3] == "0"


def test_a_dead_dimension_is_explained_where_there_is_one() -> None:
    field = {"clipped": [0.0], "constant": [False], "dead": [True], "by_range": [False]}
    text = text_of(coverage_table({"x": field}))
    assert "dead: all values together span less than a tenth" in text
    assert "dead" not in text_of(coverage_table({"x": field | {"constant": [True]}}))


def test_published_statistics_without_digests_can_be_shown(shared_data: Path) -> None:
    path = shared_data / "lbm_raw" / "expected_stats_past1_future14_pad3_12.json"
    assert "robot__version" in text_of(render_statistics(describe(DatasetStatistics.load(path))))


def test_published_sample_shards_have_statistics(shared_data: Path) -> None:
    stats = dataset_statistics(shared_data / "lbm_robotics_shard")
    field = stats["robot__action__poses__right::panda__xyz_relative"]
    assert field.past == 1 and field.steps == 16 and field.count[1] == 5


def test_merging_folders_reports(datasets: dict) -> None:
    merged, report = merge_files(datasets["robot"], {"lever": 1, "door": 1})
    assert report["weighting"] == "mix" == merged.weighting
    assert report["partial_fields"] == {}


def test_preview_counts_what_is_in_the_batch(
    datasets: dict, tokenizer: Tokenizer, normalizer: Normalizer, tmp_path: Path
) -> None:
    config = DataConfig(
        text=TextData(batch_size=10, weights={"web": 0.7, "docs": 0.3}),
        captions=CaptionData(batch_size=3),
        robot=RobotData(batch_size=4, inputs=INPUTS),
    )
    loader = build_loader(
        config, datasets, seed=0, tokenizer=tokenizer, tokens_per_image=2, normalizer=normalizer
    )
    found = preview(loader, tokenizer, step=3, notes=["it reads no words"])
    text = found["modalities"]["text"]
    assert {k: v["samples"] for k, v in text["datasets"].items()} == {"web": 7, "docs": 3}
    robot, batch = found["modalities"]["robot"], loader.batch(3)["robot"]
    assert robot["tensors"]["images"]["shape"] == [4, 2, 3, 16, 16]
    assert robot["padding"] == pytest.approx(1 - batch["token_mask"].float().mean().item())
    valid = batch["action_mask"].numpy()[..., 0].mean()
    assert robot["valid_action_steps"] == pytest.approx(valid)
    assert found["modalities"]["captions"]["first_sample"].startswith("a picture of")
    assert "robot, step 3" in text_of(render_preview(found))
    assert "\nit reads no words" in text_of(render_preview(found))
    json.dumps(found, allow_nan=False)
    sheets = save_images(loader.batch(3), tmp_path)
    assert [path.name for path in sheets] == ["captions.png", "robot.png"]
    from PIL import Image

    with Image.open(tmp_path / "robot.png") as sheet:
        assert np.asarray(sheet).shape == (64, 32, 3)


def test_digests_are_exported_and_merged_by_the_files_name(datasets, tmp_path: Path) -> None:
    dataset_statistics(datasets["robot"]["lever"]).save(tmp_path / "lever.tdigest.json")
    paths = {"door": datasets["robot"]["door"], "lever": tmp_path / "lever.tdigest.json"}
    merged, _ = merge_files(paths)
    field = "robot__actual__poses__right::panda__xyz"
    counts = [DatasetStatistics.load(path)[field].count.sum() for path in paths.values()]
    assert merged[field].count.sum() == sum(counts)


def test_tables_of_fields_keep_every_name_and_number_in_80_columns(datasets: dict) -> None:
    """A name in a line of its own, as long as it is; a row per dimension below it."""
    statistics = dataset_statistics(datasets["robot"]["lever"])
    lines = lines_at_80(render_statistics(describe(statistics)))
    at = lines.index(
        next(x for x in lines if x.startswith("robot__action__poses__right::panda__ro"))
    )
    assert lines[at].startswith("robot__action__poses__right::panda__rot_6d  ")
    assert lines[at + 1].split() == [
        "dim",
        "mean",
        "std",
        "min",
        "1",
        "%",
        "50",
        "%",
        "99",
        "%",
        "max",
    ]
    field = statistics["robot__action__poses__right::panda__rot_6d"]
    for dim in range(6):
        values = [getattr(field, name)[dim] for name in ("mean", "std", "min")]
        values.append(field.quantiles[0.01][dim])
        cells = lines[at + 2 + dim].split()
        assert cells[:5] == [str(dim), *(f"{value:.4g}" for value in values)]
    fields = {
        f"robot__action__poses__right::panda__{half}_relative": {
            "clipped": [0.25, 0.0], "constant": [False, True], "dead": [False, True],
            "by_range": [False, False],
        }
        for half in ("xyz", "rot_6d")
    }  # fmt: skip
    shown = lines_at_80(coverage_table(fields))
    assert [line for line in shown if line in fields] == list(fields)
    assert shown.count("  0          25.000%") == shown.count("  1           0.000% constant") == 2


def lines_at_80(shown: Any) -> list[str]:
    """As a terminal of 80 columns has it: nothing wider, nothing cut."""
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(shown)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert all(len(line) <= 80 and "\u2026" not in line for line in lines)
    return lines
