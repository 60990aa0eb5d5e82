"""The reference is made from the code: every setting is described, every one is on its page."""

import importlib
import re
import sys

import pytest
from pydantic import BaseModel

from flows.cli import COMMANDS
from foundry_core.config.registry import Registry
from foundry_core.pipeline.recipe_help import configs_in, is_tag, spelled
from foundry_core.pipeline.registry import KINDS, stage_kinds
from tests.conftest import REPOSITORY

HOOKS = REPOSITORY / "docs" / "hooks"
sys.path.append(str(HOOKS))

import commands as command_pages  # noqa: E402
import settings as setting_pages  # noqa: E402


def within(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A config and all that it may hold."""
    found, pending = {model}, [model]
    while pending:
        for info in pending.pop().model_fields.values():
            for inner, _ in configs_in(info):
                if inner not in found:
                    found.add(inner)
                    pending.append(inner)
    return found


DOCUMENTED = sorted(
    {model for _, one in setting_pages.documented() for model in within(one)},
    key=lambda model: (model.__module__, model.__name__),
)


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return {path: text for path, _, text in (*setting_pages.pages(), *command_pages.pages())}


@pytest.mark.parametrize("model", DOCUMENTED, ids=lambda model: model.__name__)
def test_every_setting_says_what_it_means(model):
    undescribed = [
        name
        for name, info in model.model_fields.items()
        if not is_tag(model, name) and not (info.description or "").strip()
    ]
    assert undescribed == []


def registries() -> list[Registry]:
    """Of every module that makes one, whatever other tests have imported."""
    found: dict[int, Registry] = {}
    for package in ("foundry_core", "flows"):
        for file in sorted((REPOSITORY / package).rglob("*.py")):
            if "Registry(" in file.read_text():
                name = ".".join(file.relative_to(REPOSITORY).with_suffix("").parts)
                module = importlib.import_module(name.removesuffix(".__init__"))
                held = [one for one in vars(module).values() if isinstance(one, Registry)]
                found |= {id(one): one for one in held}
    return list(found.values())


def test_everything_that_is_registered_is_looked_at():
    """A new open set, or a new kind, is in the reference without a line here."""
    sets = {id(one.registry) for one in setting_pages.OPEN_SETS} | {id(KINDS)}
    ours = registries()
    assert len(ours) > 10
    assert [one.group for one in ours if id(one) not in sets] == []
    assert {f"stages/{kind}" for kind in stage_kinds()} <= {
        p for p, _ in setting_pages.documented()
    }
    assert len(DOCUMENTED) > 80


@pytest.mark.parametrize(("page", "model"), list(setting_pages.documented()))
def test_every_setting_is_on_its_page(made, page, model):
    text = made[f"{page}.md"]
    prefix = "resources." if model.__name__.endswith("Resources") else ""
    for name, info in model.model_fields.items():
        if not is_tag(model, name):
            assert f"| <code>{prefix}{spelled(name, info)}</code> |" in text, (page, name)


def test_what_stands_in_a_row(made):
    page = made["stages/train_vla.md"]
    (row,) = [line for line in page.splitlines() if line.startswith("| <code>decay_f")]
    assert (
        row == "| <code>decay_fraction</code> | float (&gt; 0, ≤ 1) | <code>0.2</code> | wsd only |"
    )
    assert "| <code>kind</code> | cosine &#124; constant &#124; wsd | <code>cosine</code> |" in page
    assert "([action heads](PAGE:heads))" in page
    assert "### `training.optimizer` {#training-optimizer}" in page
    assert "### `from`" not in made["mappings.md"]
    assert "<code>from</code>" in made["mappings.md"]


def test_anchors_of_a_page_are_there_and_only_once(made):
    for page, text in made.items():
        anchors = re.findall(r"\{#([^}]+)\}", text)
        assert len(anchors) == len(set(anchors)), page
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= set(anchors), page


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_on_its_commands_page(made, command):
    text = made[f"commands/{command}.md"]

    def flags(parser):
        for action in parser._actions:
            yield from (o for o in action.option_strings if o not in ("-h", "--help"))
        for inner in command_pages._inner(parser).values():
            yield from flags(inner)

    for flag in flags(command_pages.parser_of(command)):
        assert re.search(rf"<code>[^<]*{re.escape(flag)}\b", text), flag
