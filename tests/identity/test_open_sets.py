"""A stage's code covers the members of open sets that its recipe chose, and no others."""

from enum import Enum

import pytest

from foundry_core.config.validation import validate
from foundry_core.identity import code, code_modules
from foundry_core.identity.code import CodeIndex
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import config_classes, stage_fingerprint
from foundry_core.pipeline.stage import Config
from tests.toy_sets import forget, install_lab, install_outside


@pytest.fixture
def lab(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()  # caches are kept where there is a home
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "toy_lab")
    monkeypatch.syspath_prepend(tmp_path)
    install_lab(tmp_path)
    yield tmp_path
    forget()


def code_of(**recipe):
    stage = stage_kind("cut")
    return stage_fingerprint(stage, validate(stage.Recipe, recipe, "cut"), CodeIndex())


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


SQUARE = {"kind": "flat-square"}


def test_the_chosen_member_counts_with_all_that_it_calls(lab):
    before = code_of(shape=SQUARE)
    assert "toy_lab.shapes.flat_square:Square()" in before.functions
    edit(lab / "toy_lab" / "helper.py", "x * x", "x**2")
    between = code_of(shape=SQUARE)
    assert between != before
    edit(lab / "toy_lab" / "shapes" / "flat_square.py", "self.width)", "self.width + 1)")
    assert code_of(shape=SQUARE) != between


@pytest.mark.parametrize("recipe", [{"more": [SQUARE]}, {"spare": SQUARE}])
def test_a_member_anywhere_in_the_recipe_counts(lab, recipe):
    before, plain = code_of(shape={"kind": "dot"}, **recipe), code_of(shape={"kind": "dot"})
    edit(lab / "toy_lab" / "helper.py", "x * x", "x**2")
    assert code_of(shape={"kind": "dot"}, **recipe) != before
    assert code_of(shape={"kind": "dot"}) == plain


def test_other_members_do_not_count_edited_or_added(lab):
    before = code_of(shape=SQUARE)
    shapes = lab / "toy_lab" / "shapes"
    edit(shapes / "dot.py", "return 0", "return 1")
    text = (shapes / "dot.py").read_text().replace("dot", "line").replace("Dot", "Line")
    (shapes / "line.py").write_text(text)
    forget()
    assert code_of(shape={"kind": "line"}) != before
    assert code_of(shape=SQUARE) == before


def test_a_member_of_an_outside_package_is_followed_like_ours(lab):
    square = code_of(shape=SQUARE)
    install_outside(lab)
    assert code_of(shape=SQUARE) == square
    before = code_of(shape={"kind": "circle"})
    assert "toy_outside.pi:PI" in before.functions
    edit(lab / "toy_outside" / "pi.py", "3", "4")
    assert code_of(shape={"kind": "circle"}) != before


def test_what_is_known_of_an_outside_package_is_not_looked_up_again(lab, monkeypatch):
    install_outside(lab)
    monkeypatch.setattr(code_modules, "settled", lambda stat: True)
    square, before = code_of(shape=SQUARE), code_of(shape={"kind": "circle"})
    with monkeypatch.context() as patch:
        patch.setattr(CodeIndex, "_walk", lambda *_: pytest.fail("walks"))
        assert code_of(shape=SQUARE) == square
        assert code_of(shape={"kind": "circle"}) == before
    edit(lab / "toy_outside" / "pi.py", "3", "4")
    assert code_of(shape={"kind": "circle"}) != before


def test_a_package_that_moved_is_looked_up_again(lab, monkeypatch):
    install_outside(lab)
    monkeypatch.setattr(code_modules, "settled", lambda stat: True)
    code_of(shape={"kind": "circle"})
    monkeypatch.setattr(code, "_folder_of", lambda package: lab / "elsewhere")
    assert CodeIndex()._known == {}


def test_what_a_member_inherits_counts(lab):
    before = code_of(shape=SQUARE)
    edit(lab / "toy_lab" / "base.py", "raise NotImplementedError", "raise ValueError")
    assert code_of(shape=SQUARE) != before


class Colour(Enum):
    RED = "red"


class Inner(Config):
    colour: Colour = Colour.RED


class Outer(Config):
    named: dict[str, Inner] = {"a": Inner()}


def test_configs_and_enums_are_found_wherever_a_recipe_holds_them():
    assert set(config_classes(Outer())) == {Outer, Inner, Colour}
