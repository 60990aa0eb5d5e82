"""Which state serves which stage: nothing that could change one number may differ."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_core.config.canonical import canonical
from foundry_core.identity.environment import Environment
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import StageSpec
from foundry_core.pipeline.stage import Recipe, Trunk
from foundry_core.pipeline.trunks import (
    MIXED,
    KeptTrunk,
    family_of,
    ground_of,
    search,
    trunk_key,
    trunk_recipe,
)
from foundry_core.training.config import TrainResources
from foundry_core.training.trunk import BUDGETS, trunk_of

HERE = Environment(
    packages={"torch": "2.13.0", "numpy": "2.3"},
    variables={"NVIDIA_TF32_OVERRIDE": "", "MODE": "ab"},
    numerics={"threads": "1", "workers": "none", "cpu": "x"},
)
CONTENTS = {"text": {"a": "1" * 64, "b": "2" * 64}, "tokenizer": {"": "3" * 64}}
SHARED = {
    "model": {"dim": 16, "layers": [1, 2], "tied": True, "name": None},
    "data": {"text": {"batch_size": 8, "weights": {"a": 0.5}}},
    "training": {"optimizer": {"lr": 0.001, "betas": [0.9, 0.95]}, "schedule": {"warmup": 2}},
}
SPEC = StageSpec(
    name="llm",
    kind="train_llm",
    key="k" * 64,
    code="version:1",
    code_fingerprint="f" * 64,
    functions={},
    recipe=Recipe(),
    recipe_bytes=b"{}",
    seed=3,
    sources={"model.vision": "digest"},
    inputs={"text": {"a": "4" * 64, "b": "5" * 64}, "tokenizer": {"": "6" * 64}},
)
TRUNK = Trunk(recipe=SHARED, step=80, total=100, keep=True, extend="exact")


def kept(spec=SPEC, trunk=TRUNK, contents=CONTENTS, built_on=HERE, step=50):
    """As the store has what such a stage left."""
    ground = ground_of(built_on, spec.code_fingerprint)
    recipe = trunk_recipe(spec.kind, trunk, step, ground)
    return KeptTrunk(
        key="t" * 64,
        identity=trunk_key(spec, recipe, contents),
        step=step,
        ground=ground,
        origin="o" * 64,
        code_fingerprint=spec.code_fingerprint,
        built_on=built_on,
    )


def look(*there, trunk=TRUNK, spec=SPEC, contents=CONTENTS, now=HERE):
    return search(spec, trunk, contents, now, there)


def test_what_is_equal_serves_up_to_the_branch():
    assert look(kept()).found.step == 50
    assert look(kept(step=80)).found.step == 80
    assert look(kept(step=81)).found is None
    assert look(kept(step=20), kept(step=60), kept(step=90)).found.step == 60
    assert look(kept(step=0)).found is None
    assert look(kept(), trunk=replace(TRUNK, extend="never")).found is None


def leaves(value, path=()):
    """The paths of all leaves of nested mappings and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        if isinstance(item, dict | list):
            yield from leaves(item, (*path, name))
        else:
            yield (*path, name)


def changed(value, path):
    """The same with another leaf there."""
    if not path:
        return "other" if value != "other" else 1
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:])
    return copy


OTHERS = st.one_of(
    st.sampled_from(list(leaves(SHARED))).map(
        lambda path: {"trunk": replace(TRUNK, recipe=changed(SHARED, path))}
    ),
    st.sampled_from(list(leaves(CONTENTS))).map(lambda path: {"contents": changed(CONTENTS, path)}),
    st.sampled_from(
        [
            {"kind": "train_vlm"},
            {"code": "version:2"},
            {"code": "version:lab:1"},
            {"seed": 4},
            {"sources": {"model.vision": "other"}},
            {"sources": {}},
        ]
    ).map(lambda fields: {"spec": replace(SPEC, **fields)}),
    st.sampled_from(
        [
            {**CONTENTS, "text": {"b": "1" * 64, "a": "2" * 64}},
            {"tokenizer": CONTENTS["tokenizer"]},
            {**CONTENTS, "llm": {"": "7" * 64}},
        ]
    ).map(lambda contents: {"contents": contents}),
)


@given(OTHERS, st.sampled_from(["exact", "close"]), st.booleans())
def test_another_recipe_code_seed_or_input_never_serves(other, extend, this_one_changed):
    """However close a rounding is asked for, and whatever the store's index says."""
    if this_one_changed:
        trunk = replace(other.get("trunk", TRUNK), extend=extend)
        found = look(kept(), **{**other, "trunk": trunk})
    else:
        found = look(kept(**other), trunk=replace(TRUNK, extend=extend))
    assert (found.found, found.refused) == (None, ())
    families = [
        family_of(case.get("spec", SPEC), case.get("trunk", TRUNK), case.get("contents", CONTENTS))
        for case in ({}, other)
    ]
    assert families[0] != families[1]


@given(
    st.sampled_from(
        [
            (kind, name)
            for kind in ("packages", "variables", "numerics")
            for name in vars(HERE)[kind]
        ]
    )
)
def test_what_it_runs_on_is_equal_or_asked_for(which):
    kind, name = which
    now = replace(HERE, **{kind: {**getattr(HERE, kind), name: "other"}})
    exact = look(kept(), now=now)
    assert exact.found is None and "resources.extend=close would" in exact.refused[0]
    close = look(kept(), now=now, trunk=replace(TRUNK, extend="close"))
    assert close.found.step == 50 and len(close.found.differs) == 1
    # A shorter one that is equal goes before a longer one that is not.
    assert look(kept(built_on=now), kept(step=20)).found.step == 20


def test_other_code_and_several_machines_are_close_only():
    edited = replace(SPEC, code_fingerprint="e" * 64)
    several = replace(kept(), ground=MIXED, identity="")
    recipe = trunk_recipe(SPEC.kind, TRUNK, 50, MIXED)
    several = replace(several, identity=trunk_key(SPEC, recipe, CONTENTS))
    for spec, there in ((edited, kept()), (SPEC, several)):
        assert look(there, spec=spec).found is None
        assert look(there, spec=spec, trunk=replace(TRUNK, extend="close")).found.differs


def test_budget_and_step_do_not_tell_families_apart():
    assert family_of(SPEC, TRUNK, CONTENTS) == family_of(
        SPEC, replace(TRUNK, step=7, total=9, keep=False, extend="close"), CONTENTS
    )


RECIPES = {
    "train_llm": {"model": {"dim": 16, "n_layers": 1, "n_heads": 2}, "data": {"text": {}}},
    "train_vlm": {"data": {"captions": {}, "text": {}}},
    "train_vla": {
        "model": {"head": {"kind": "flow", "dim": 8, "n_layers": 1, "n_heads": 2}},
        "data": {"robot": {"inputs": {"cameras": ["a"]}}, "captions": {}},
    },
}


@pytest.mark.parametrize("kind", RECIPES)
def test_all_of_a_recipe_counts_but_budget_and_fall(kind):
    training = {"steps": 100, "schedule": {"kind": "wsd", "warmup": 5}}
    recipe = stage_kind(kind).Recipe.model_validate({**RECIPES[kind], "training": training})
    whole = canonical(recipe)
    shared = trunk_of(recipe, TrainResources(), 100).recipe
    assert shared.keys() == whole.keys()
    assert all(shared[name] == whole[name] for name in whole if name != "training")
    assert whole["training"].keys() - shared["training"].keys() == set(BUDGETS)
    for name, value in shared["training"].items():
        if name != "schedule":
            assert value == whole["training"][name], name
    assert shared["training"]["schedule"] == {"kind": "constant", "warmup": 5}
