"""`foundry data ...` as it is typed."""

import argparse
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flows.cli import main
from flows.cli.commands import data
from flows.reports.datasets import formats
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.statistics.builder import compute_statistics
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.text.tokenizer import Tokenizer
from tests.stories import write_stories
from tests.synthetic import make_captions, make_robot, make_text, npz, write_shards

pytestmark = pytest.mark.usefixtures("known_code")

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command with --json: its output, parsed; `code` is the expected exit code."""

    def call(*words: object, code: int = 0) -> Any:
        capsys.readouterr()
        assert main(["data", *map(str, words), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    return call


def problems(report: dict) -> str:
    return "\n".join(f"{f['where']}: {f['problem']}" for f in report["findings"])


def test_preview_of_a_mix_counts_what_every_dataset_gave(
    run: Run, datasets: dict, home: Path
) -> None:
    robot = datasets["robot"]
    found = run(
        *("preview", "--mix", f"{robot['lever']}@3", f"other={robot['door']}@1"),
        *(datasets["captions"]["scenes"], "--step", 2, "--images", home / "sheets"),
        *("-o", "robot.batch_size=8", "-o", "robot.inputs.horizon=4"),
    )
    modalities = found["modalities"]
    counts = {k: v["samples"] for k, v in modalities["robot"]["datasets"].items()}
    assert counts == {"lever": 6, "other": 2}
    assert modalities["robot"]["tensors"]["actions"]["shape"] == [8, 4, 10]
    assert {len(f["clipped"]) for f in found["normalization"].values()} == {1, 3, 6}
    assert 0 < modalities["robot"]["valid_action_steps"] <= 1
    assert modalities["captions"]["datasets"]["scenes"]["samples"] == 16
    assert sorted(p.name for p in (home / "sheets").iterdir()) == ["captions.png", "robot.png"]


def test_preview_of_the_published_layout_needs_no_configuration(
    run: Run, shared_data: Path
) -> None:
    found = run(
        *("preview", "--mix", shared_data / "lbm_robotics_shard"),
        *("-o", "robot.batch_size=4", "-o", "robot.inputs.image.size=[64, 64]"),
    )
    assert found["modalities"]["robot"]["tensors"]["images"]["shape"] == [4, 6, 3, 64, 64]


def test_preview_of_text_takes_its_tokenizer(run: Run, datasets: dict, home: Path) -> None:
    web = datasets["text"]["web"]
    assert "--tokenizer" in run("preview", "--mix", web, code=2)["hint"]
    Tokenizer.train(["x"], 258).save(home / "tokenizer")
    found = run("preview", "--mix", web, "--tokenizer", home / "tokenizer")
    assert found["modalities"]["text"]["documents_per_row"] >= 1
    assert "not a weight" in run("preview", "--mix", f"{web}@much", code=2)["error"]
    assert "pipeline" in run("preview", "demo", code=2)["error"]


@pytest.fixture
def pipeline(home: Path) -> Path:
    """Tokenizer, text, language model; over texts in a file."""
    return write_stories(home)


def test_preview_says_what_is_not_built_and_what_makes_no_batches(run: Run, pipeline: Path) -> None:
    answer = run("preview", pipeline, "llm", code=2)
    assert answer["error"] == "stages 'stories', 'tokenizer' are not built yet"
    assert answer["hint"] == f"foundry run {pipeline} --only stories"
    assert "stages that do: llm" in run("preview", pipeline, "stories", code=2)["hint"]
    assert run("preview", pipeline, "lm", code=2)["hint"] == "did you mean 'llm'?"


@pytest.mark.slow("stages in processes of their own")
def test_preview_of_a_pipelines_stage_before_anything_trained(run: Run, pipeline: Path) -> None:
    _build(pipeline, "stories")
    found = run("preview", pipeline, "llm", "--step", 3, "-o", "llm.data.text.batch_size=4")
    assert found["modalities"]["text"]["tensors"]["tokens"]["shape"] == [4, 17]
    assert "story" in found["modalities"]["text"]["first_sample"]
    other = run("preview", pipeline, "llm", "--step", 3, "-o", "llm.seed=1")
    assert (
        other["modalities"]["text"]["first_sample"] != (found["modalities"]["text"]["first_sample"])
    )


def _build(pipeline: Path, stage: str) -> None:
    """As `foundry run --only`, without Prefect's server."""
    from flows.runs.engine import PipelineRun
    from flows.runs.planning import Request, prepare

    made = PipelineRun(prepare(Request(pipeline=str(pipeline), only=(stage,))))
    made.start()
    for name in made.affected():
        made.stage(name)


def test_statistics_computed_shown_and_merged(run: Run, datasets: dict, home: Path) -> None:
    robot = datasets["robot"]
    gripper = "robot__action__grippers__right::panda_hand"
    shown = run("stats", robot["lever"], "--out", home / "lever" / "stats.json")
    assert run("show", home / "lever") == shown
    (dim,) = shown["fields"][gripper]["dims"]
    assert dim["discrete"] and (dim["percentile_1"], dim["percentile_99"]) == (0.0, 0.1)
    few = run("show", home / "lever", "--field", gripper, "--html", home / "page.html")
    assert list(few["fields"]) == [gripper]
    page = (home / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and gripper in page
    assert "<script" not in page and "http" not in page
    run("show", home / "lever", "--plot", home / "plots", "--field", gripper)
    assert [p.suffix for p in (home / "plots").iterdir()] == [".png"]

    folders = [f"a={robot['lever']}", f"b={robot['door']}"]
    report = run("merge-stats", *folders, "--out", home / "merged.json")
    assert report["weighting"] == "count" and set(report["parts"]) == {"a", "b"}
    only = run("merge-stats", *folders, "--weights", 1, 0, "--out", home / "only.json")
    assert only["parts"]["a"]["windows"] > 0
    half = run("merge-stats", *folders, "--weights", 1, 1, "--out", home / "half.json")
    assert half["weighting"] == "mix"
    alone = DatasetStatistics.load(robot["lever"])[gripper]
    weighted = DatasetStatistics.load(home / "only.json")[gripper]
    assert np.array_equal(weighted.mean, alone.mean)
    assert (
        "2 datasets"
        in run(*("merge-stats", *folders, "--weights", 1, "--out", home / "no.json"), code=2)[
            "error"
        ]
    )


def test_check_shows_what_is_cut_off_and_refuses_statistics_of_others(
    run: Run, datasets: dict, home: Path
) -> None:
    robot = datasets["robot"]
    gripper = "robot__action__grippers__right::panda_hand"
    own = run("check", robot["lever"])
    assert all("__actual__" in name and "_relative" in name for name in own["without"])
    assert own["normalization"][gripper]["by_range"] == [True]
    assert own["normalization"][gripper]["clipped"] == [0.0]
    lever, door = (f"{label}={robot[label]}" for label in ("lever", "door"))
    report = run("merge-stats", lever, door, "--out", home / "both" / "stats.json")
    assert report["normalization"][gripper]["constant"] == [False]
    assert run("check", robot["door"], "--stats", home / "both")["statistics"] == str(home / "both")
    run("stats", robot["door"], "--out", home / "again" / "stats.json")
    run("check", robot["door"], "--stats", home / "again")

    # Far narrower than the data, and of another dataset.
    narrow = {
        name: 0.01 * np.random.default_rng(0).normal(size=(200, 9, field.dims))
        for name, field in DatasetStatistics.load(robot["door"]).fields.items()
    }
    item = ("e", narrow, np.ones((200, 9), bool))
    compute_statistics([item], past=1).save(home / "narrow" / "stats.json")
    report = run("merge-stats", f"narrow={home / 'narrow'}", "--out", home / "m" / "stats.json")
    (home / "m" / "report.json").write_text(json.dumps(report))
    refused = run("check", robot["door"], "--stats", home / "m", code=2)["error"]
    assert f"statistics of narrow ({report['parts']['narrow']['datasets'][0]})" in refused
    assert str(robot["door"]) in refused
    forced = run("check", robot["door"], "--stats", home / "m", "--force")
    assert any(gripper in note and "outside the clip" in note for note in forced["notes"])
    assert "no robot data" in run("check", datasets["captions"]["scenes"], code=2)["error"]
    assert main(["data", "check", str(robot["door"])]) == 0


def test_statistics_that_are_not_there_are_named(run: Run, home: Path, datasets: dict) -> None:
    assert "no statistics at" in run("show", home, code=2)["error"]
    answer = run("show", datasets["robot"]["lever"], "--field", "robot__nothing", code=2)
    assert "robot__nothing" in answer["error"]


def test_inspect_lists_a_sample(run: Run, datasets: dict, shared_data: Path) -> None:
    found = run("inspect", datasets["robot"]["lever"], "--sample", 1)
    assert (found["modality"], found["samples"], found["digests"]) == ("robot", 6, True)
    members = found["sample"]["members"]
    assert members["front_000000.jpg"]["holds"] == "image 16 x 16"
    assert "panda_hand float64[" in members["lowdim.npz"]["holds"]
    assert members["metadata.json"]["holds"].startswith('{"length"')
    foreign = run("inspect", shared_data / "image_caption")
    assert (foreign["modality"], foreign["digests"]) == ("captions", False)
    assert (
        "no sample 9" in run("inspect", datasets["robot"]["lever"], "--sample", 9, code=2)["error"]
    )


@pytest.mark.parametrize("label", ["web", "scenes", "lever"])
def test_sound_datasets_are_found_sound(run: Run, label: str, home: Path) -> None:
    folder = _sound(label, home / "sound")
    report = run("validate", folder, "--samples", 0)
    assert report["findings"] == [] and report["decoded"] == report["samples"] > 0


def test_published_shards_are_found_sound(run: Run, shared_data: Path) -> None:
    for name, count in (("lbm_robotics_shard", 5), ("text_tokens", 3), ("image_caption", 4)):
        report = run("validate", shared_data / name, "--samples", count)
        assert report["decoded"] >= count, problems(report)


def _sound(label: str, folder: Path) -> Path:
    """Fresh data sets with everything their dataset.json must say."""
    if label == "web":
        return make_text(folder)
    if label == "scenes":
        make_captions(folder)
        more = {"images": ["front", "wrist"], "sequences": 30}
    else:
        make_robot(folder)
        arrays = np.load(_member(folder, "lowdim.npz"))
        more = {"fields": {name: arrays[name].shape[1] for name in arrays.files}}
    info = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(info | more))
    return folder


def _member(folder: Path, extension: str) -> Any:
    import io

    return io.BytesIO(ShardSet(folder).member(0, extension))


@pytest.mark.parametrize(
    ("label", "where", "problem"),
    [
        ("flip", "shard shard_000001", "sha256"),
        ("truncate", "shard shard_000001", "bytes"),
        ("delete", "shard shard_000001", "missing"),
        ("count", "shard shard_000000", "the manifest claims 99"),
        ("nan", "sample 1 of shard 'shard_000000'", "holds NaN or infinity"),
        ("image", "sample 1 of shard 'shard_000000'", "images of 'wrist' are missing"),
        ("picture", "sample 1 of shard 'shard_000000'", "is not a readable image"),
        ("length", "sample 1 of shard 'shard_000000'", "steps where dataset.json says"),
        ("field", "sample 1 of shard 'shard_000000'", "no field 'robot__actual__grippers"),
        ("words", "sample 1 of shard 'shard_000000'", "no instruction"),
        ("windows", "dataset.json", "its episodes make"),
        ("hz", "dataset.json", "dataset.json.hz = -3"),
        ("stats", "stats.json", "no statistics"),
    ],
)
def test_every_kind_of_damage_is_found_and_named(
    run: Run, home: Path, label: str, where: str, problem: str
) -> None:
    folder = _sound("lever", home / "robot")
    _spoil(folder, label)
    report = run("validate", folder, "--samples", 0, code=1)
    matching = [f for f in report["findings"] if where in f["where"] and problem in f["problem"]]
    assert matching, problems(report)
    others = {f["where"] for f in report["findings"] if where not in f["where"]}
    assert others <= ({"dataset.json"} if label == "count" else set()), problems(report)


def _spoil(folder: Path, how: str) -> None:
    tar = folder / "shard_000001.tar"
    if how in ("flip", "truncate", "delete"):
        data = bytearray(tar.read_bytes())
        data[len(data) // 3] ^= 1
        tar.write_bytes(data if how == "flip" else data[: len(data) // 2])
        if how == "delete":
            tar.unlink()
    elif how == "count":
        lines = (folder / "manifest.jsonl").read_text().splitlines()
        lines[0] = json.dumps(json.loads(lines[0]) | {"num_sequences": 99})
        (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    elif how == "stats":
        (folder / "stats.json").unlink()
    elif how in ("windows", "hz"):
        info = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(info | {how: -3 if how == "hz" else 7}))
    else:
        _rewrite(folder, how)


def _rewrite(folder: Path, how: str) -> None:
    """The shards again, with the second episode spoilt: digests are right, contents are not."""
    shards = ShardSet(folder)
    samples = [
        (shards.key(i), {k: bytes(v) for k, v in shards.members(i).items()})
        for i in range(len(shards))
    ]
    members = samples[1][1]
    arrays = dict(np.load(_bytes(members["lowdim.npz"])))
    gripper = "robot__actual__grippers__right::panda_hand"
    if how == "nan":
        arrays[gripper] = arrays[gripper] * np.nan
    elif how == "field":
        del arrays[gripper]
    elif how == "image":
        del members["wrist_000002.jpg"]
    elif how == "picture":
        members["wrist_000002.jpg"] = b"\xff\xd8 no"
    elif how == "words":
        members["language_instructions.json"] = b'{"original": []}'
    elif how == "length":
        length = json.loads(members["metadata.json"])["length"] - 1
        members["metadata.json"] = json.dumps({"length": length}).encode()
        arrays = {name: values[:-1] for name, values in arrays.items()}
    members["lowdim.npz"] = npz(arrays)
    info = (folder / "dataset.json").read_bytes()
    shutil.rmtree(folder / "again", ignore_errors=True)
    write_shards(folder, samples, 2)
    (folder / "dataset.json").write_bytes(info)


def _bytes(data: bytes) -> Any:
    import io

    return io.BytesIO(data)


@pytest.mark.slow("stages in processes of their own")
def test_conversion_outside_a_pipeline(run: Run, home: Path) -> None:
    words, options = _conversion(home)
    made = run(*words, *options)
    assert made["written"] == str(home / "shards")
    assert run("validate", home / "shards")["findings"] == []
    assert "is not empty" in run(*words, *options, code=2)["error"]


def test_a_conversion_that_cannot_be_makes_nothing(run: Run, home: Path) -> None:
    words, options = _conversion(home)
    assert "needs a tokenizer" in run(*words, *options[:-2], code=2)["error"]
    answer = run(*words, *options, "-o", "source.fild=x", code=2)
    assert "fild" in answer["error"] and "field" in answer["hint"]
    assert not (home / "shards").exists()


def _conversion(home: Path) -> tuple[list, list]:
    texts = home / "texts.jsonl"
    texts.write_text("".join(json.dumps({"words": f"story {i} " * 9}) + "\n" for i in range(30)))
    Tokenizer.train(["x"], 258).save(home / "tokenizer")
    options = ["-o", "context=16", "-o", "source.field=words", "-o", "tail=pad"]
    words = ["convert", "--from", "jsonl", texts, home / "shards"]
    return words, [*options, "--tokenizer", home / "tokenizer"]


def test_unknown_formats_and_options_get_the_nearest(run: Run, home: Path) -> None:
    assert {"jsonl", "img2dataset", "spartan", "demonstrations"} <= set(formats())
    answer = run("convert", "--from", "jsonll", home, home / "out", code=2)
    assert answer["hint"] == "did you mean 'jsonl'?"
    answer = run("convert", "--from", "spartan", home, home / "out", "-o", "camera=[a]", code=2)
    assert "camera" in answer["error"] and "cameras" in answer["hint"]
    missing = run("convert", "--from", "spartan", home / "none", home / "out", code=2)
    assert str(home / "none") in missing["error"]


def test_the_documented_commands_can_be_typed() -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    data.add_arguments(parser)
    text = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
    block = text.split("```console\n")[1].split("```")[0]
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert len(lines) > 7
    for words in lines:
        assert words[:2] == ["foundry", "data"]
        assert parser.parse_args(words[2:]).action == words[2]


def test_a_place_that_is_not_there_is_said_to_be_none(run: Run, home: Path) -> None:
    for words in (("inspect",), ("validate",), ("inspect", "--from", "lerobot"), ("check",)):
        answer = run(*words, home / "no-such", code=2)
        assert "no-such" in answer["error"] and "does not exist" in answer["error"], words
    answer = run("inspect", "--from", "lerobot", "s3://bucket/set", code=2)
    assert "looked into on this machine only" in answer["error"]


def test_what_a_format_requires_is_asked_for_as_each_command_takes_it(run: Run, home: Path) -> None:
    """Of a look, of a conversion: the hint, carried out, works."""
    recording = home / "episode_0.hdf5"
    with h5py.File(recording, "w") as file:
        file["action"] = np.zeros((4, 14))
        file["observations/qpos"] = np.zeros((4, 14))
    answer = run("inspect", recording, code=2)
    assert answer == {"error": "'source.hz' is required", "hint": "give it with -o hz=VALUE"}
    assert run("inspect", recording, "-o", "hz=50")["hz"] == [50]
    fields = ("-o", "fields=[action]", "-o", "cameras=[top]")
    answer = run("convert", "--from", "aloha", recording, home / "out", *fields, code=2)
    assert answer["hint"] == "give it with -o source.hz=VALUE"
