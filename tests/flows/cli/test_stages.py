"""`foundry stages KIND [PART]`: every setting can be found, a screen at a time."""

import re

import pytest

from flows.cli import main
from foundry_core.pipeline.recipe_help import settings_of
from foundry_core.pipeline.registry import stage_kind


def lines(capsys, *words: str) -> list[str]:
    assert main(["stages", *words]) == 0
    return capsys.readouterr().out.splitlines()


def settings(kind: str) -> set[str]:
    stage = stage_kind(kind)
    both = [*settings_of(stage.Recipe), *settings_of(stage.Resources, "resources.")]
    return {setting.path for setting in both}


def shown(found: list[str]) -> set[str]:
    return {line.split("  ")[0] for line in found} & settings("train_vla")


def test_following_every_count_shows_every_setting_once_or_as_the_head_of_a_part(capsys):
    waiting, seen, told = [()], set(), 0
    while waiting:
        found = lines(capsys, "train_vla", *waiting.pop())
        assert len(found) <= 70, "a screen or two"
        seen |= shown(found)
        for line in found:
            more = re.search(r"…  \d+ settings: foundry stages train_vla (\S+)$", line)
            if more:
                told += 1
                waiting.append((more[1],))
    assert seen == settings("train_vla") and told > 10


def test_a_count_is_what_stands_below(capsys):
    found = "\n".join(lines(capsys, "train_vla"))
    count = int(re.search(r"^training…  (\d+) settings", found, re.MULTILINE)[1])
    assert count == sum(path.startswith("training.") for path in settings("train_vla"))


@pytest.mark.parametrize("words", [("--all",), ("model", "--all")])
def test_all_of_it_at_once(capsys, words):
    part = "" if words[0] == "--all" else words[0]
    wanted = {path for path in settings("train_vla") if path.startswith(part)}
    assert shown(lines(capsys, "train_vla", *words)) == wanted


@pytest.mark.parametrize("part", ["model.head[flow]", "model.head.flow"])
def test_a_choice_is_named_with_brackets_or_without(capsys, part):
    found = lines(capsys, "train_vla", part)
    assert found and all(line.startswith("model.head[flow]") for line in found)


def test_a_part_that_is_not_there_names_the_nearest(capsys):
    assert main(["stages", "train_vla", "trainin"]) == 2
    assert "train_vla has no setting trainin (did you mean 'training'?)" in capsys.readouterr().err
