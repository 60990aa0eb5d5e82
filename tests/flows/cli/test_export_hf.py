"""`foundry export-hf`: policies as folders of their own, models for transformers, with parity."""

import json
import sys
from pathlib import Path

import pytest
import torch

from flows.cli import main

TESTS = Path(__file__).parents[2]
for helper in ("tasks", "data/loading"):
    sys.path.append(str(TESTS / helper))

from training_stages import Bench  # noqa: E402


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    torch.set_num_threads(1)
    bench = Bench(tmp_path_factory.mktemp("trained"))
    bench.llm()
    bench.vlm()
    bench.vla()
    return bench.root


def exported(capsys, *arguments) -> tuple[int, dict]:
    code = main(["export-hf", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow("trains what it exports")
def test_a_policy_and_a_language_model(bench, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    code, said = exported(capsys, bench / "vla", tmp_path / "door", "--license", "mit")
    assert (code, said["form"]) == (0, "foundry-policy")
    assert "license: mit" in (tmp_path / "door/README.md").read_text()
    code, said = exported(capsys, bench / "llm", tmp_path / "llm")
    assert (code, said["form"]) == (0, "transformers")
    assert 0 <= said["parity"]["largest_difference"] <= 1e-5
    code, said = exported(capsys, bench / "llm", tmp_path / "llm")
    assert code == 2 and "holds something already" in said["error"]


def test_mistakes_are_told_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for arguments, message in (
        (("0123456789", tmp_path / "x"), "is no folder, no artifact and no run"),
        ((tmp_path, tmp_path / "x"), "holds no config.json"),
        (("a", tmp_path / "x", "--push", "lab/x"), "needs a token that may write"),
        (("a", tmp_path / "x", "--data-license", "mit"), "is no licence of a source"),
    ):
        code, said = exported(capsys, *arguments)
        assert code == 2 and message in said["error"]
    assert not (tmp_path / "x").exists()
