"""Whatever stands in a pipeline document: it is built, or refused in one line for a person."""

import copy
import functools
import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.config.documents import find_pipeline, load_document
from foundry_core.errors import FoundryError
from foundry_core.pipeline.graph import build_pipeline
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import identify

DEMO = load_document(find_pipeline("demo"))
# Every setting of every stage, not only those that the demo sets.
for _name, _node in build_pipeline(DEMO, kinds=stage_kind).stages.items():
    DEMO["stages"][_name]["recipe"] = _node.recipe.model_dump(mode="json")
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS | st.sampled_from(["llm", "train_llm", "robot", "stats"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(value, path=()):
    """Every path into a document."""
    yield path
    for name, item in value.items() if isinstance(value, dict) else ():
        yield from places(item, (*path, name))


def at(path, document=DEMO):
    return functools.reduce(operator.getitem, path, document)


def check(document):
    try:
        identify(build_pipeline(document, kinds=stage_kind))
    except FoundryError as error:
        assert str(error).isprintable() and error.hint


PLACES = [path for path in places(DEMO) if path]


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(PLACES), VALUES)
def test_any_value_anywhere_is_taken_or_refused_in_one_line(path, value):
    document = copy.deepcopy(DEMO)
    at(path[:-1], document)[path[-1]] = value
    check(document)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([p for p in PLACES if isinstance(at(p), dict)]), st.text(max_size=8))
def test_any_key_anywhere_is_taken_or_refused_in_one_line(path, key):
    document = copy.deepcopy(DEMO)
    at(path, document)[key] = 1
    check(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": [1]}, "pipeline.stages is not a mapping"),
        ({"name": 3}, "pipeline.name = 3: a name is a text"),
        ({"stages": {"a": {"kind": "job"}}}, "stage 'a': unknown stage kind 'job'"),
        ({"stages": {"a": {"kind": 3}}}, "stage 'a' has no kind"),
        (
            {"stages": {"a": {"kind": "merge_stats", "inputs": ["robot"]}}},
            "a.inputs is not a mapping",
        ),
        (
            {"stages": {"a": {"kind": "merge_stats", "inputs": {"datasets": "b"}}, "b": {}}},
            "stage 'b' has no kind",
        ),
        ({"stages": {"a": {"kind": "evaluate", "recipe": 3}}}, "a = 3: a mapping is expected"),
        (
            {"stages": {"a": {"kind": "evaluate", "recipe": {"\x1b[2J\n": 1}}}},
            r"unknown key 'a.\x1b[2J\n'",
        ),
    ],
)
def test_mistakes_are_named_where_they_are(change, message):
    with pytest.raises(FoundryError) as raised:
        build_pipeline(change, kinds=stage_kind)
    assert message in raised.value.message
