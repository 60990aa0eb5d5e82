"""What may change a key, and what may not, over generated pipelines and generated edits of code."""

import os
import socket
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundry_core.identity.code import CodeFingerprint, CodeIndex
from foundry_core.identity.code import fingerprint as code_fingerprint
from foundry_core.identity.sources import fingerprint
from foundry_core.pipeline import spec as identity
from foundry_core.pipeline.graph import build_pipeline
from foundry_core.pipeline.spec import identify
from tests.support import KINDS, WORDS

SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
BELOW = {"first": {"model", "total"}, "second": {"total"}, "model": set(), "total": set()}

# Recipe leaves of the small pipeline with values that are all different from each other.
LEAVES = {
    ("first", "word"): st.text(max_size=6),
    ("first", "lines"): st.integers(1, 9),
    ("first", "rate"): st.floats(0.0, 8.0, allow_nan=False),
    ("first", "comment"): st.text(max_size=6),
    ("second", "seconds"): st.sampled_from([0.0, 0.5, 1.0, 3]),
    ("model", "steps"): st.integers(1, 9),
    ("model", "rate"): st.sampled_from([0.1, 0.25, 1, 1.0, 2]),
    ("total", "unit"): st.sampled_from(["lines", "words", "Lines"]),
    ("total", "budget"): st.integers(0, 9),
}
recipes = st.fixed_dictionaries({}, optional=LEAVES)
seeds = st.fixed_dictionaries({}, optional=dict.fromkeys(BELOW, st.integers(0, 3)))


def document(leaves, seeds=(), resources=()):
    """The small pipeline's document with these recipe leaves, seeds and resources."""
    doc = yaml.safe_load(WORDS.read_text())
    for (stage, leaf), value in leaves.items():
        doc["stages"][stage].setdefault("recipe", {})[leaf] = value
    for stage, seed in dict(seeds).items():
        doc["stages"][stage]["seed"] = seed
    for stage, values in dict(resources).items():
        doc["stages"][stage]["resources"] = values
    return doc


def keys(doc):
    specs = identify(build_pipeline(doc, kinds=KINDS.__getitem__), code=_CODE)
    return {name: spec.key for name, spec in specs.items()}


_CODE = CodeIndex()


def shuffled(value, draw):
    """The same mapping, its keys in another order, whole floats as integers and the reverse."""
    if isinstance(value, dict):
        names = draw(st.permutations(list(value)))
        return {name: shuffled(value[name], draw) for name in names}
    if isinstance(value, list):
        return [shuffled(item, draw) for item in value]
    return value


def respelt(leaves, draw):
    """Floats that are whole numbers as integers, or left; both are one number."""
    return {
        path: int(value)
        if isinstance(value, float) and value.is_integer() and draw(st.booleans())
        else value
        for path, value in leaves.items()
    }


@SETTINGS
@given(recipes, seeds, st.data())
def test_spelling_and_order_do_not_count(leaves, seeds, data):
    base = document(leaves, seeds)
    other = shuffled(document(respelt(leaves, data.draw), seeds), data.draw)
    assert keys(base) == keys(other)


@SETTINGS
@given(recipes, st.integers(1, 64), st.integers(0, 8))
def test_workers_devices_and_micro_batches_do_not_count(leaves, cpus, gpus):
    resources = {stage: {"cpus": cpus, "gpus": gpus} for stage in BELOW}
    assert keys(document(leaves)) == keys(document(leaves, resources=resources))


@SETTINGS
@given(recipes, st.data())
def test_a_changed_leaf_changes_its_stage_and_what_follows_and_nothing_else(leaves, data):
    path = data.draw(st.sampled_from(sorted(LEAVES)))
    effective = _effective(leaves, path)
    value = data.draw(LEAVES[path].filter(lambda new: new != effective))
    _only_below(path[0], document(leaves), document({**leaves, path: value}))


@SETTINGS
@given(recipes, st.sampled_from(sorted(BELOW)), st.integers(4, 10**9))
def test_a_changed_seed_likewise(leaves, stage, seed):
    _only_below(stage, document(leaves), document(leaves, {stage: seed}))


@SETTINGS
@given(recipes, st.sampled_from(["second", "model"]))
def test_a_changed_input_likewise(leaves, other):
    doc = document(leaves)
    doc["stages"]["total"]["inputs"]["texts"] = ["first", "second"][:: 1 if other == "model" else 2]
    changed = document(leaves)
    changed["stages"]["model"]["inputs"]["text"] = "second"
    before, after = keys(document(leaves)), keys(changed)
    same_words = before["first"] == before["second"]
    assert (before["model"] != after["model"]) != same_words
    fewer = keys(doc)
    assert (fewer["total"] != before["total"]) == (other == "second")


def _effective(leaves, path):
    node = build_pipeline(document(leaves), kinds=KINDS.__getitem__).stages[path[0]]
    return getattr(node.recipe, path[1])


def _only_below(stage, before, after):
    old, new = keys(before), keys(after)
    assert {name for name in old if old[name] != new[name]} == {stage, *BELOW[stage]}


@SETTINGS
@given(recipes, st.text("abc/", min_size=1, max_size=9), st.text("xyz", min_size=1, max_size=9))
def test_place_host_and_environment_do_not_count(tmp_path, monkeypatch, leaves, folder, host):
    before = keys(document(leaves))
    place = tmp_path / folder.strip("/").replace("//", "/")
    place.mkdir(parents=True, exist_ok=True)
    with monkeypatch.context() as moved:
        moved.chdir(place)
        moved.setattr(socket, "gethostname", lambda: host)
        moved.setenv("FOUNDRY_HOME", str(place / "home"))
        moved.setenv("FOUNDRY_STORE", str(place / "store"))
        moved.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        moved.setenv("TZ", "Pacific/Auckland")
        assert keys(document(leaves)) == before


PINNED = "131208494aa2c3b4416d344c62a0fb02849f7032d30b683482abd96db476dc86"


def test_keys_of_one_recipe_are_what_they_were(monkeypatch):
    """A pinned value: whoever changes the canonical form re-keys every store there is."""
    monkeypatch.setattr(identity, "stage_fingerprint", lambda *_: _FIXED)
    assert keys(document({}))["total"] == PINNED


_FIXED = CodeFingerprint(digest="0" * 64, functions={})


# A stage, a helper it calls, and all that the helper reaches: every number below can change the
# result, every name and comment can not.
CODE = {
    "stage.py": '''
from pkg.helper import scale
from pkg import constants


class Work:
    @staticmethod
    def run(ctx):
        """Words {words}."""
        # {words}
        return scale(ctx, {a}) + constants.OFFSET


def unrelated():
    return {unrelated}
''',
    "helper.py": '''
"""{words}"""
FACTOR = {b}
UNUSED = {unrelated}


def scale(x, by, again={c}):
    return deeper(x) * by * again * FACTOR


def deeper(x, *, shift={d}):
    def inside(y):
        return y + {e}

    return inside(x) + shift
''',
    "constants.py": "OFFSET = {f}\nOTHER = {unrelated}  # {words}\n",
}
numbers = st.fixed_dictionaries({name: st.integers(0, 99) for name in "abcdef"})
noise = st.fixed_dictionaries(
    {"words": st.text("abc ", max_size=8), "unrelated": st.integers(0, 99)}
)


def code_digest(folder: Path, values, noise):
    package = folder / "pkg"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("")
    for name, text in CODE.items():
        (package / name).write_text(text.format(**values, **noise))
        # Two examples may write files of one size within a tick of the clock.
        os.utime(package / name, ns=(next(_TICKS), next(_TICKS)))
    return code_fingerprint("pkg.stage", "Work.run", index=CodeIndex({"pkg": folder})).digest


_TICKS = iter(range(10**18, 10**19, 10**9))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    return tmp_path


@SETTINGS
@given(numbers, noise, noise)
def test_comments_docstrings_and_what_is_not_called_do_not_count(folder, values, one, other):
    assert code_digest(folder, values, one) == code_digest(folder, values, other)


@SETTINGS
@given(numbers, numbers, noise)
def test_code_is_equal_when_and_only_when_all_that_is_reached_is_equal(folder, one, other, noise):
    assert (code_digest(folder, one, noise) == code_digest(folder, other, noise)) == (one == other)


@SETTINGS
@given(numbers, st.sampled_from("abcdef"), noise)
def test_any_one_reached_value_changes_the_code(folder, values, name, noise):
    changed = values | {name: values[name] + 1}
    assert code_digest(folder, values, noise) != code_digest(folder, changed, noise)


def test_the_folder_that_code_and_sources_lie_in_does_not_count(folder):
    values, words = dict.fromkeys("abcdef", 1), {"words": "", "unrelated": 0}
    one, other = folder / "one", folder / "other" / "deeper"
    for place in (one, other):
        place.mkdir(parents=True)
    assert code_digest(one, values, words) == code_digest(other, values, words)
    assert fingerprint(one / "pkg") == fingerprint(other / "pkg")
    (other / "pkg" / "constants.py").write_text("OFFSET = 2\n")
    assert fingerprint(one / "pkg") != fingerprint(other / "pkg")


def test_a_source_rewritten_with_its_old_size_and_time_is_another_source(folder):
    path = folder / "raw.txt"
    path.write_text("one")
    old = 10**18
    os.utime(path, ns=(old, old))
    before = fingerprint(path)
    assert fingerprint(path) == before
    path.write_text("two")
    os.utime(path, ns=(old, old))
    assert fingerprint(path) != before
