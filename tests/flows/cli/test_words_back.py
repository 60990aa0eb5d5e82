"""What the command line answers to a slip: the one thing that is wrong, and how to mend it."""

import threading
from contextlib import nullcontext

import pytest

from flows import terminal
from flows.ablation.verdict_table import seeds_text
from flows.cli import main
from flows.cli.commands import lineage
from flows.console import plan_table
from flows.service import doctor
from foundry_core.pipeline.cost import Cost
from foundry_core.pipeline.plan import Plan, StagePlan
from tests.support import WORDS


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


def test_a_misspelt_command_is_told_the_nearest(capsys):
    assert main(["plans", "demo"]) == 2
    assert capsys.readouterr().err == (
        "foundry: there is no command 'plans' (did you mean 'plan'?)\n"
    )


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("llm.training.steps = 32", "llm.training.steps"),
        ("llm.training.steps =32", "llm.training.steps"),
        ("llm.training.steps= 32", "llm.training.steps="),
    ],
)
def test_spaces_around_an_equals_sign_are_named(words, path, capsys):
    assert main(["plan", "demo", "-o", *words.split()]) == 2
    assert capsys.readouterr().err == (
        f"foundry: override {path!r} is not PATH=VALUE (without spaces: -o llm.training.steps=32)\n"
    )


def test_other_words_that_nobody_takes_are_still_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["plan", "demo", "-o", "llm.training.steps=32", "more"])
    assert "unrecognized arguments: more" in capsys.readouterr().err


def test_a_number_of_episodes_says_what_it_is_enough_for(capsys):
    # R: power.prop.test(p1 = .5, p2 = .7, power = .8) n = 93.0
    asked = ["eval", "power", "--base", ".5", "--variant"]
    assert main([*asked, ".7"]) == 0
    assert capsys.readouterr().out == (
        "93 episodes per arm, tested once at the end: "
        "power 0.8 to tell 0.7 from 0.5 at level 0.05\n"
    )
    assert main([*asked, ".75", "--episodes", "50"]) == 0
    assert "power 0.74 to tell 0.75 from 0.5 at level 0.05\n" in capsys.readouterr().out


def test_a_trace_shows_settings_that_differ_from_their_defaults():
    recipe = {"steps": 7, "rate": 0.1, "seconds": 0.0}
    assert lineage._changed("train", recipe) == {"steps": 7}
    assert lineage._changed("train", recipe | {"forgotten": 1}) == recipe | {"forgotten": 1}
    assert lineage._changed("nobodys", recipe) == recipe


def planned(*actions):
    rows = {
        f"s{i}": StagePlan(name=f"s{i}", kind="k", key="0" * 64, action=action)
        for i, action in enumerate(actions)
    }
    return plan_table(Plan(pipeline="words", baseline=None, stages=rows, specs={}), Cost())


def test_a_plan_that_reuses_all_says_that_nothing_runs():
    assert planned("reuse", "reuse").caption == "nothing to run"
    assert planned("reuse", "blocked").caption is None


def test_seeds_that_agree_to_the_last_digit_show_no_certainty():
    seeds = {"deviation": 0.0, "low": 0.0, "high": 0.0, "fewest": 2}
    said = seeds_text(seeds)
    assert "too few episodes were played" in said and "0.0" not in said
    assert "provisional" in said
    seen = seeds_text({"deviation": 0.141, "low": 0.08, "high": 0.527, "fewest": 3})
    assert "scatter by 14.1 points (standard deviation; 95 % interval 8.0 to 52.7)" in seen


def test_outside_of_a_project_its_own_pipelines_are_said_to_be_known_inside(
    capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "my-lab"]) == 2
    assert "; a project's own are known inside its folder)" in capsys.readouterr().err
    (tmp_path / "foundry.toml").write_text("[project]\n")
    assert main(["plan", "my-lab"]) == 2
    assert "inside its folder" not in capsys.readouterr().err
    assert main(["plan", "demofast"]) == 2
    assert "(did you mean 'demo-fast'?)" in capsys.readouterr().err


def test_a_home_without_a_run_is_named(capsys, home):
    assert main(["lineage", "runs"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("no run in ") and "FOUNDRY_HOME" in said


def test_what_is_no_key_is_told_where_keys_stand(capsys):
    assert main(["lineage", "trace", "KEY"]) == 2
    said = capsys.readouterr().err
    assert said.count("8 digits") == 1 and "`foundry plan`" in said


def test_a_remedy_is_not_folded(capsys, monkeypatch):
    """It is copied: in several lines a shell takes it for several commands."""
    remedy = "pip install 'foundry-robotics[" + ",".join(["tensorboard"] * 9) + "]'"
    look = doctor.Look(name="extras", state="note", says="some are not there", remedy=remedy)
    monkeypatch.setattr(doctor, "looks", lambda *_: [look])
    monkeypatch.setenv("COLUMNS", "80")
    main(["doctor"])
    assert remedy in capsys.readouterr().out


def test_the_first_plan_of_a_home_says_what_takes_so_long(home, monkeypatch, capsys):
    told = []
    monkeypatch.setattr(terminal, "said_after", lambda *asked: told.append(asked) or nullcontext())
    monkeypatch.setenv("FOUNDRY_HOME", str(home / "none"))
    assert main(["plan", str(WORDS)]) == 0  # makes no home, so that nothing is kept
    monkeypatch.setenv("FOUNDRY_HOME", str(home))
    home.mkdir(exist_ok=True)
    assert main(["plan", str(WORDS)]) == 0
    assert main(["plan", str(WORDS)]) == 0
    said = "reading installed packages and code once: {} take under a second"
    assert told == [(2.0, said.format(x)) for x in ("plans after the first run", "later plans")]


def test_a_line_comes_only_when_the_work_is_not_over_before(monkeypatch, capsys):
    with terminal.said_after(3600, "never"):
        pass
    said = threading.Event()
    monkeypatch.setattr(
        terminal, "print", lambda *what, **where: (print(*what, **where), said.set()), raising=False
    )
    with terminal.said_after(0, "this takes long"):
        assert said.wait(60)
    assert capsys.readouterr().err == "foundry: this takes long\n"
