"""A policy that reads no words, and data that has several instructions: it is said everywhere."""

import json
import logging

import pytest
from training_stages import ROBOT, TRAINING, Bench

from flows.reports.notes import notes_section
from foundry_core.models.config import EncoderConfig
from foundry_core.serving.policy import load_policy
from foundry_core.serving.server import PolicyServer
from foundry_core.training.words import words_notes

VISION = {"kind": "conv_vit", "image_size": 16, "dim": 16, "n_layers": 1, "n_heads": 2}
TEXT = {"kind": "transformer", "dim": 16, "n_layers": 1, "n_heads": 2}
HEAD = {"kind": "regression", "dim": 16, "n_layers": 1, "n_heads": 2}
DEAF = EncoderConfig.model_validate({"vision": VISION})
READS = EncoderConfig.model_validate({"vision": VISION, "text": TEXT})


def test_it_counts_what_the_data_are_told_apart_by():
    (note,) = words_notes(DEAF, [{"open": 3, "close": 1}, {"open": 5, "lift": 1}])
    assert note.startswith("the data has 3 tasks") and "reads no words" in note
    assert words_notes(DEAF, [{"open": 3}, {"open": 2}, {}]) == []
    assert words_notes(READS, [{"open": 3, "close": 1}]) == []
    assert words_notes(None, [{"open": 3, "close": 1}]) == []  # on a VLM


class Folder:
    """A store of one artifact."""

    def __init__(self, root):
        self.root = root

    def file_path(self, artifact, name):
        return self.root / name


class Artifact:
    kind = "train_vla"

    def __init__(self, root):
        files = [path for path in root.rglob("*") if path.is_file()]
        self.files = [type("File", (), {"path": str(f.relative_to(root))}) for f in files]


@pytest.mark.parametrize("reads", [False, True])
def test_a_training_says_it_and_leaves_it_for_the_report_and_the_server(tmp_path, caplog, reads):
    bench = Bench(tmp_path)
    described = json.loads((tmp_path / "robot" / "dataset.json").read_text())
    described["tasks"] = {"open": 2, "close": 1}
    (tmp_path / "robot" / "dataset.json").write_text(json.dumps(described))
    backbone = {"kind": "encoder", "vision": VISION, **({"text": TEXT} if reads else {})}
    recipe = {
        "model": {"backbone": backbone, "head": HEAD},
        "data": {"robot": ROBOT},
        "training": {**TRAINING, "steps": 1},
    }
    slots = {"robot": "robot", "stats": "stats"} | ({"tokenizer": "tokenizer"} if reads else {})
    with caplog.at_level(logging.WARNING):
        folder, _ = bench.stage("vla", "train_vla", recipe, slots)
    said = [line for line in caplog.messages if "reads no words" in line]
    sections = notes_section(Folder(folder), {"arm": Artifact(folder)})
    server = PolicyServer(load_policy(folder), "tiny")
    server.stop()
    assert server.reads_words is reads
    if reads:
        assert (said, sections) == ([], [])
        return
    (line,) = said
    assert line.startswith("the data has 2 tasks")
    ((title, html),) = sections
    assert title == "Worth knowing" and f"arm: {line}" in html
    (folder / "records" / "notes.json").write_text('{"not": "a list"}')
    assert notes_section(Folder(folder), {"arm": Artifact(folder)}) == []
