"""All words of an episode, from readers through shards into samples and exports."""

import json
import shutil

import numpy as np
import pytest

from foundry_core.config.canonical import canonical
from foundry_core.data.convert.paraphrases import paraphrased, read_paraphrases
from foundry_core.data.export.lerobot import export_lerobot
from foundry_core.data.inspection.validate import validate
from foundry_core.data.loading.config import RobotData
from foundry_core.data.loading.robot import RobotDataset
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.robot.demonstrations import Demonstrations
from foundry_core.data.sources.robot.lerobot import Lerobot
from foundry_core.data.sources.robot.spartan import Spartan
from foundry_core.errors import FoundryError
from tasks.convert_robot import ConvertRobot, ConvertRobotRecipe
from tests.data.convert.test_robot import convert, write_episode


def test_paraphrases_are_of_a_task_or_of_words():
    words = {"original": ["lift it"], "randomized": ["up"]}
    found = paraphrased("t", words, {"t": ("a", "up"), "lift it": ("b", "a"), "other": ("c",)})
    assert found == {**words, "paraphrase": ["a", "b"]}
    assert paraphrased("t", words, {"other": ("c",)}) == words


@pytest.mark.parametrize(
    ("name", "text"),
    [("p.yaml", "lift: [raise it, up]\n"), ("p.json", '{"lift": ["raise it", "up"]}')],
)
def test_files(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    assert read_paraphrases(str(path)) == {"lift": ("raise it", "up")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lift: raise it", "p.yaml: lift: .*tuple"),
        ("lift: [1]", "p.yaml: lift.0: .*string"),
        ("lift: ['']", "'lift' has an empty text"),
        ("lift: []", "'lift' has an empty text, or none"),
        ("{}", "p.yaml is empty"),
        ("lift: [", "p.yaml"),
    ],
)
def test_files_that_hold_something_else(tmp_path, text, message):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(FoundryError, match=message):
        read_paraphrases(str(path))
    with pytest.raises(FoundryError, match="there is no file of paraphrases"):
        read_paraphrases(str(tmp_path / "q.yaml"))


def test_the_file_is_part_of_the_identity_by_its_content(tmp_path):
    source = {"format": "demonstrations", "path": str(tmp_path)}
    (tmp_path / "demos.json").write_text("{}")
    digests = []
    for name, text in (("a.yaml", "t: [go]"), ("b.yaml", "t: [go]"), ("b.yaml", "t: [come]")):
        other = tmp_path.parent / f"{tmp_path.name}_words"
        other.mkdir(exist_ok=True)
        (other / name).write_text(text)
        recipe = ConvertRobotRecipe(source=source, paraphrases=str(other / name))
        digests.append((canonical(recipe), ConvertRobot.sources(recipe)["paraphrases"]))
    assert digests[0] == digests[1]
    assert digests[1][0] == digests[2][0]
    assert digests[1][1] != digests[2][1]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six windows of an episode, with two instructions of its own and two paraphrases."""
    root = tmp_path_factory.mktemp("words")
    told = {"original": ["do it", "do that"], "alternative": ["why not do it"]}
    write_episode(root / "demos", 0, instructions=told, success=None)
    write_episode(root / "demos", 1)
    (root / "demos" / "demos.json").write_text("{}")
    out = root / "out"
    out.mkdir()
    paraphrases = {"do that": ("perform it", "get it done")}
    convert(Demonstrations(path=str(root / "demos")), out, paraphrases=paraphrases)
    return out


def test_shards_hold_all_and_the_report_counts(shards):
    members = ShardSet(shards).members(0)
    assert json.loads(bytes(members["language_instructions.json"])) == {
        "original": ["do it", "do that"],
        "alternative": ["why not do it"],
        "paraphrase": ["perform it", "get it done"],
    }
    report = json.loads((shards / "report.json").read_text())
    assert (report["success_unknown"], report["paraphrased"]) == (1, 1)
    assert validate(shards, samples=0)["findings"] == []


def spoken(shards, words, *, train, keys):
    """What the loader would say of the first window, at each key of a sample and epoch."""
    dataset = object.__new__(RobotDataset)
    dataset.shards, dataset._train = CheckedShards(shards), train
    dataset._config = RobotData.model_construct(instruction=words)
    table = json.loads(bytes(ShardSet(shards).member(0, "language_instructions.json")))
    windows = type("W", (), {"instructions": table})
    return [dataset._instruction(0, windows, key) for key in keys]


def test_training_draws_among_them_and_validation_takes_the_first(shards):
    every = spoken(shards, "any", train=True, keys=range(500))
    assert set(every) == {"do it", "do that", "why not do it", "perform it", "get it done"}
    assert every == spoken(shards, "any", train=True, keys=range(500))
    assert min(every.count(text) for text in set(every)) > 60  # 100 each, to 4 sigma
    assert set(spoken(shards, "paraphrase", train=True, keys=range(99))) == {
        "perform it", "get it done",
    }  # fmt: skip
    assert set(spoken(shards, "any", train=False, keys=range(50))) == {"do it"}
    assert set(spoken(shards, "paraphrase", train=False, keys=range(50))) == {"perform it"}


def test_an_export_to_lerobot_keeps_them(shards, tmp_path):
    export_lerobot(str(shards), tmp_path / "out", images="png")
    source = Lerobot(path=str(tmp_path / "out"))
    found = [source.read_episode(ref).instructions for ref in source.episodes()]
    stored = ShardSet(shards)
    assert found == [
        json.loads(bytes(stored.member(n, "language_instructions.json"))) for n in range(2)
    ]
    assert "get it done" in str(source.reads(source.episodes()[0]).facts)
    copy = shutil.copytree(tmp_path / "out", tmp_path / "copy")
    (copy / "meta/instructions.jsonl").write_text('{"episode_index": 0}\n')
    with pytest.raises(FoundryError, match="is no line of it"):
        Lerobot(path=str(copy)).episodes()


def test_paraphrases_of_other_tasks_are_a_mistake(tmp_path):
    write_episode(tmp_path / "demos", 0)
    (tmp_path / "demos" / "demos.json").write_text("{}")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(FoundryError, match=r"paraphrases of lift it fit no episode.*tasks are t"):
        convert(Demonstrations(path=str(tmp_path / "demos")), out, paraphrases={"lift it": ("up",)})


def test_spartan_keeps_every_text(shared_data, tmp_path):
    raw = shared_data / "lbm_raw" / "tasks" / "PutMugOnSaucer"
    (first, *_) = Spartan(path=str(raw)).episodes()
    folder = tmp_path / "tasks" / "PutMugOnSaucer" / "episode_0" / "processed"
    folder.mkdir(parents=True)
    for file in first.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    with np.load(folder / "observations.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["language_instruction"] = np.array([["put it", "place it"], ["put it", " "]])
    np.savez(folder / "observations.npz", **arrays)
    source = Spartan(path=str(tmp_path))
    (ref,) = source.episodes()
    assert source.read_episode(ref).instructions == {"original": ["put it", "place it"]}


def test_lerobot_reads_tasks_that_no_row_names(shards, tmp_path):
    """Several tasks of an episode in meta/episodes; v3.0 has one of them in its rows."""
    import pyarrow as pa
    from pyarrow.parquet import read_table, write_table

    root = tmp_path / "out"
    export_lerobot(str(shards), root, images="png")
    (root / "meta/instructions.jsonl").unlink()
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = read_table(path)
    at = table.column_names.index("tasks")
    tasks = pa.array([["do it", "get going"], ["do it"]])
    write_table(table.set_column(at, "tasks", tasks), path)
    source = Lerobot(path=str(root))
    found = [source.read_episode(ref).instructions["original"] for ref in source.episodes()]
    assert found == [["do it", "get going"], ["do it"]]
