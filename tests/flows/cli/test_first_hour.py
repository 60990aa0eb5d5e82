"""What a newcomer meets: help, completion, a project of one's own, and what this machine lacks."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from flows import cli
from flows.console import print_table
from flows.service import doctor
from foundry_core import __version__
from foundry_core.errors import FoundryError
from foundry_core.execution.python import python_command
from foundry_core.home import home_dir
from foundry_core.project import MARKER, enter, project_folder

WORDS = """
stages:
  tokenizer:
    kind: train_tokenizer
    recipe: {vocab_size: 300, sources: [{format: packages, packages: [packaging]}]}
  text:
    kind: convert_text
    inputs: {tokenizer: tokenizer}
    recipe: {context: 64, source: {format: packages, packages: [packaging]}}
  sizes: {kind: shard_sizes, inputs: {datasets: text}}
"""
REPOSITORY = Path(__file__).resolve().parents[3]


def test_without_a_command_it_says_what_there_is_and_shows_examples(capsys):
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown and "foundry run demo-fast" in shown
    assert all(f"    {command}" in shown for command in cli.COMMANDS)


def test_its_version(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"foundry {__version__}\n")


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_argument_says_what_it_is(command):
    parser = argparse.ArgumentParser()
    cli.command_module(command).add_arguments(parser)
    assert _undescribed(parser) == []


def _undescribed(parser):
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [name for inner in action.choices.values() for name in _undescribed(inner)]
        elif not action.help:
            found.append("/".join(action.option_strings) or action.dest)
    return found


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("foundry prof", {"profile"}),
        ("foundry plan foundry-vla-1", {"foundry-vla-1.7b", "foundry-vla-100m", "foundry-vla-11m"}),
        ("foundry stages train_v", {"train_vla", "train_vlm"}),
        ("foundry plan demo --strict-c", {"--strict-code"}),
    ],
)
def test_a_shell_is_offered_what_would_be_accepted(tmp_path, line, offered):
    answer = tmp_path / "offered"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    environment = {**os.environ, **asked, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(python_command("flows.cli"), env=environment, cwd=tmp_path, check=True)
    assert set(answer.read_text().split()) == offered


def test_config_says_whose_word_each_setting_is(capsys):
    words = ["config", "demo", "vla", "-o", "vla.training.steps=7", "--json"]
    assert cli.main(words) == 0
    rows = {row["setting"]: row for row in json.loads(capsys.readouterr().out)["vla"]}
    said = {name: (rows[name]["value"], rows[name]["origin"]) for name in rows}
    assert said["training.steps"] == (7, "-o")
    assert said["training.optimizer.lr"] == (1e-3, "training/demo")
    assert said["data.robot.batch_size"] == (32, "pipelines/demo")
    assert said["training.optimizer.eps"] == (1e-8, "default")
    assert said["seed"] == (0, "pipelines/demo (the pipeline's)")


def test_config_prints_lines_that_set_what_they_say(capsys):
    assert cli.main(["config", "demo", "evaluate", "--said"]) == 0
    lines = capsys.readouterr().out.splitlines()
    overrides = [line.partition("  # ")[0] for line in lines if ".recipe" not in line]
    assert "evaluate.episodes_per_task=25" in overrides
    again = [word for override in overrides for word in ("-o", override)]
    assert cli.main(["config", "demo", "evaluate", "--json", *again]) == 0
    repeated = json.loads(capsys.readouterr().out)["evaluate"]
    assert cli.main(["config", "demo", "evaluate", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["evaluate"]
    assert [(r["setting"], r["value"]) for r in repeated] == [
        (r["setting"], r["value"]) for r in first
    ]


def test_models_have_their_sizes(capsys):
    assert cli.main(["models"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "llm_1b" in line)
    # 24 blocks of 2,048 and the table: 1,439,895,552 weights; 2 and 16 bytes of each
    assert "1.44B" in row and "2.68" in row and "21.46" in row


@pytest.fixture
def lab(tmp_path, monkeypatch, capsys):
    """A project that `foundry init` made; the current folder is one of its own."""
    monkeypatch.chdir(tmp_path)
    for variable in ("FOUNDRY_HOME", "FOUNDRY_KINDS", "FOUNDRY_PIPELINES", "FOUNDRY_PATH"):
        monkeypatch.setenv(variable, "")  # what entering sets is undone, too
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert cli.main(["init", "my-lab"]) == 0
    capsys.readouterr()
    monkeypatch.chdir(tmp_path / "my-lab" / "pipelines")
    return tmp_path / "my-lab"


def test_a_new_project_is_known_from_every_folder_of_it(lab, capsys):
    assert cli.main(["plan", "my-lab", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert any(stage["kind"] == "shard_sizes" for stage in stages)
    assert home_dir() == lab / ".foundry" and not home_dir().exists()


def test_its_stages_run_in_processes_of_their_own(lab):
    (lab / "pipelines" / "words.yaml").write_text(WORDS)
    for name in ("random", "duckdb"):  # what lies beside the kinds hides nothing of Python's
        (lab / f"{name}.py").write_text("raise RuntimeError('this is the project's own')")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FOUNDRY")}
    done = subprocess.run(
        [*python_command("flows.cli"), "run", "words", "--json"],
        cwd=lab / "tests",
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "succeeded"
    assert len(list((lab / ".foundry" / "store").rglob("sizes.json"))) == 1


def test_a_folder_in_use_is_not_written_to(lab, capsys):
    assert cli.main(["init", str(lab)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert cli.main(["init", "No Name"]) == 2


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[project]\nkind = ['a']", "project.'kind'"),
        ("[project]\nkinds = 'a'", "no list of names"),
        ("project = 3", "no table"),
        ("[projects]", "'projects'"),
        ("kinds: a", MARKER),
    ],
)
def test_a_wrong_project_file_is_named(tmp_path, monkeypatch, text, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / MARKER).write_text(text)
    with pytest.raises(FoundryError, match=problem):
        enter()


def test_a_project_of_another_user_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / MARKER).write_text("[project]\n")
    assert project_folder() == tmp_path
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert project_folder() is None


def test_what_others_could_have_put_there_is_no_project(tmp_path, monkeypatch):
    """A link to a project of ours, in a folder where others write, would run their code."""
    ours, shared = tmp_path / "ours", tmp_path / "shared"
    ours.mkdir()
    shared.mkdir()
    (ours / MARKER).write_text("[project]\nkinds = ['kinds']\n")
    (shared / MARKER).symlink_to(ours / MARKER)
    monkeypatch.chdir(shared)
    assert project_folder() is None
    (shared / MARKER).unlink()
    (shared / MARKER).write_text("[project]\n")
    assert project_folder() == shared
    shared.chmod(0o1777)
    assert project_folder() is None


def test_a_shell_has_the_first_word(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOUNDRY_PIPELINES", "/elsewhere")
    (tmp_path / MARKER).write_text("[project]\npipelines = ['mine']\n")
    enter()
    enter()
    assert os.environ["FOUNDRY_PIPELINES"] == f"/elsewhere{os.pathsep}{tmp_path / 'mine'}"


def test_doctor_finds_what_is_missing_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_STORE", "ftp://somewhere/x")
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:9")
    found = {look.name: look for look in doctor.looks("127.0.0.1", 9)}
    assert found["store"].state == found["Ray"].state == "wrong"
    assert all(look.remedy for look in found.values() if look.state == "wrong")
    assert found["python"].state == found["packages"].state == "ok"


def test_doctor_leaves_nothing_in_a_store(tmp_path, monkeypatch):
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("FOUNDRY_STORE", str(tmp_path / "store"))
    found = {look.name: look for look in doctor.looks("127.0.0.1", 9)}
    assert found["store"].state == "ok"
    assert list((tmp_path / "store").iterdir()) == []


def test_what_stands_below_a_table_is_one_line_in_a_file(capsys):
    words = " ".join(["wider than the table"] * 9)
    table = Table("a", caption=words)
    table.add_row("b")
    print_table(table)
    assert capsys.readouterr().out.splitlines()[-1] == words
