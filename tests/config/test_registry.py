"""Open sets: found by file and by entry point, refused when one name means two things."""

import pytest

from foundry_core.config.registry import Registry
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.pipeline.recipe_help import settings_of
from foundry_core.pipeline.registry import stage_kind, stage_kinds
from tests.toy_sets import OUTSIDE, forget, install, install_lab, install_outside


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_KINDS", "toy_lab")
    monkeypatch.syspath_prepend(tmp_path)
    install_lab(tmp_path)
    yield tmp_path
    forget()


def shapes():
    from toy_lab.base import SHAPES

    return SHAPES


def test_members_are_found_by_file_and_by_entry_point(lab):
    assert shapes().names() == ["dot", "flat-square"]
    install_outside(lab)
    assert shapes().names() == ["circle", "dot", "flat-square"]
    assert shapes().get("circle").__name__ == "Circle"
    with pytest.raises(FoundryError, match=r"unknown shape 'circel'.*did you mean 'circle'"):
        shapes().get("circel")


def test_a_name_with_two_meanings_is_refused(lab):
    both = "[toy.shapes]\ndot = toy_outside.circle\nring = toy_outside.circle\n"
    install(lab, OUTSIDE, both)
    install(lab, {"toy_third/__init__.py": ""}, "[toy.shapes]\nring = toy_third.ring\n")
    with pytest.raises(FoundryError, match=r"'ring' is defined by toy_outside\.circle and by"):
        shapes().get("ring")
    with pytest.raises(FoundryError, match="is defined by"):
        shapes().names()


def test_ours_and_an_outside_one_of_the_same_name_are_refused_in_a_list(lab):
    install(lab, OUTSIDE, "[toy.shapes]\ndot = toy_outside.circle\n")
    with pytest.raises(FoundryError, match=r"'dot' is defined by toy_lab\.shapes\.dot and by toy_"):
        shapes().names()


def test_a_module_without_the_attribute_is_named(lab):
    install(lab, {"toy_outside/__init__.py": ""}, "[toy.shapes]\nnone = toy_outside\n")
    with pytest.raises(FoundryError, match="toy_outside defines no SHAPE"):
        shapes().get("none")


def test_a_set_without_a_package_is_refused():
    lost = Registry(group="toy.none", package="toy_nowhere", attribute="X", noun="thing")
    with pytest.raises(FoundryError, match="'toy_nowhere' is no importable package"):
        lost.names()


def test_a_kind_may_come_with_a_distribution(lab):
    kind = "from toy_lab.cut import Cut\nclass Saw(Cut):\n    kind = 'saw'\nSTAGE = Saw\n"
    files = {"toy_saws/__init__.py": "", "toy_saws/anything.py": kind}
    install(lab, files, "[foundry.kinds]\nsaw = toy_saws.anything\n")
    assert stage_kind("saw").kind == "saw"
    assert {"cut", "saw", "train_llm"} <= set(stage_kinds())
    with pytest.raises(FoundryError, match=r"unknown stage kind 'sav'.*'saw'"):
        stage_kind("sav")


def test_a_package_that_cannot_be_found_is_named(monkeypatch):
    monkeypatch.setenv("FOUNDRY_KINDS", "toy_nowhere")
    with pytest.raises(FoundryError, match="FOUNDRY_KINDS: 'toy_nowhere' is no importable"):
        stage_kind("train_llm")


SQUARE = {"kind": "flat-square"}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"shape": SQUARE | {"widht": 3}}, r"unknown key 'cut\.shape\.widht'.*mean 'width'"),
        ({"shape": {"kind": "dot", "wieght": 3}}, r"'cut\.shape\.wieght'.*mean 'weight'"),
        (
            {"shape": SQUARE, "more": [{"kind": "dot"}, SQUARE | {"kin": 3}]},
            r"more\.1\.kin.*'kind'",
        ),
        ({"shape": SQUARE, "more": [SQUARE | {"wdth": 3}]}, r"more\.0\.wdth.*mean 'width'"),
        ({"shape": SQUARE, "spare": {"kind": "dot", "x": 1}}, r"spare\.x.*valid: kind, weight"),
        ({"shape": SQUARE | {"width": 0}}, r"cut\.shape\.width = 0: .*greater than or equal to 1"),
        ({"shape": {"kind": "dott"}}, r"cut\.shape\.kind: unknown shape 'dott' \(did you mean 'do"),
        ({"shape": {"width": 3}}, r"cut\.shape\.kind: kind is required \(valid: dot, flat-square"),
        ({"shape": 3}, r"cut\.shape = 3: a mapping is expected"),
        ({}, r"'cut\.shape' is required"),
    ],
)
def test_a_mistake_in_a_member_names_the_right_key(lab, recipe, message):
    with pytest.raises(FoundryError, match=message):
        validate(stage_kind("cut").Recipe, recipe, "cut")


def test_a_member_is_read_dumped_and_read_again(lab):
    kind = stage_kind("cut").Recipe
    recipe = validate(kind, {"shape": SQUARE | {"width": 3}, "more": [{"kind": "dot"}]}, "cut")
    assert recipe.shape.area() == 9
    dumped = recipe.model_dump(mode="json")
    assert dumped["shape"] == SQUARE | {"width": 3}
    assert validate(kind, dumped, "cut") == recipe
    assert kind(shape=recipe.shape).shape is recipe.shape


def test_the_settings_of_every_member_are_listed(lab):
    found = {s.path: s for s in settings_of(stage_kind("cut").Recipe)}
    assert found["shape"].type == "dot | flat-square"
    assert found["spare"].type == "dot | flat-square | null"
    assert found["shape[flat-square].width"].default == "2"
    assert {"shape[dot].weight", "more[dot].weight", "spare[flat-square].width"} <= set(found)
    assert not any(path.endswith(".kind") for path in found)


def test_a_json_schema_names_the_members(lab):
    shape = stage_kind("cut").Recipe.model_json_schema()["properties"]["shape"]
    assert shape["properties"] == {"kind": {"enum": ["dot", "flat-square"]}}
