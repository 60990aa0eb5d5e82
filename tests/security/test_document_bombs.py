"""Documents that are made to cost: each is refused in one line, before anything of it is built."""

import itertools
import os
import tracemalloc

import pytest

from foundry_core.config.documents import find_pipeline, load_document
from foundry_core.config.overrides import apply_overrides, parse_override
from foundry_core.config.parsing import MAX_BYTES, MAX_DEPTH, parse_yaml
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError
from foundry_core.pipeline.graph import build_pipeline
from foundry_core.pipeline.registry import stage_kind


def refused(call, *arguments):
    with pytest.raises(FoundryError) as raised:
        call(*arguments)
    assert str(raised.value).isprintable() and raised.value.hint
    return str(raised.value)


def laughs(item, join):
    names = "abcdefghi"
    lines = [f"a: &a {item}"]
    for below, name in itertools.pairwise(names):
        lines.append(f"{name}: &{name} {join([f'*{below}'] * 9)}")
    return "\n".join(lines)


BOMBS = {
    "lists": laughs("[lol, lol]", lambda items: f"[{','.join(items)}]"),
    "mappings": laughs(
        "{x: lol}", lambda items: "{" + ",".join(f"k{n}: {i}" for n, i in enumerate(items)) + "}"
    ),
    "a long text": f"a: &a {'x' * 100_000}\nb: [{','.join(['*a'] * 1000)}]",
    "a key": laughs("[lol, lol]", lambda items: f"[{','.join(items)}]") + "\n? *i\n: 1",
    "many small values": f"a: &a [{','.join(['1'] * 50_000)}]\nb: [*a, *a, *a]",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_aliases_that_blow_up_are_refused(text):
    tracemalloc.start()
    message = refused(parse_yaml, text, "x.yaml")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "longer than 8 MiB" in message
    assert peak < 2**25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [*a]", "line 1: alias 'a' stands within what it means"),
        ("a: &a {b: *a}", "stands within what it means"),
        ("a: *b", "alias 'b' has no anchor"),
        ("<<: 3", "line 1: `<<` takes a mapping"),
        ("a: 1\n<<: [3]", "line 2: `<<` takes a mapping"),
        ("<<:", "`<<` takes a mapping"),
        ("a: " + "9" * 5000, "(5000 characters) is no int"),
        ("a: 0x" + "f" * 5000, "(5002 characters) is no int"),
        ("a: -" + "9" * 5000 + ".5", "is no float"),
        ("a: 0b_", "'0b_' is no int"),
        ("a: 0x_", "'0x_' is no int"),
        ("a: !!int ''", "'' is no int"),
        ("a: !!int x", "'x' is no int"),
        ("a: !!bool maybe", "'maybe' is no bool"),
        ("a: !!map [1]", "a mapping is expected"),
        ("a: !!timestamp never", "tag 'tag:yaml.org,2002:timestamp' has no use"),
        ("a: !!set {b, c}", "tag 'tag:yaml.org,2002:set' has no use"),
        ("a: !!binary QUJD", "has no use"),
        ("a: !!python/object/apply:os.system [id]", "has no use"),
        ("a: \x00", "x.yaml"),
        ("a: \ud800", "not UTF-8"),
        ("a: 1\n---\nb: 2", "line 2: but found another document"),
        ("[" * 100_000, f"nested deeper than {MAX_DEPTH} levels"),
        ("{a: " * 100_000, "nested deeper"),
        ("- " * 100_000 + "x", "nested deeper"),
        ("a: [" * 51 + "]" * 51, "x.yaml"),
        ("x" * (MAX_BYTES + 1), "longer than 1 MiB"),
    ],
)
def test_nonsense_is_refused_where_it_stands(text, message):
    assert message in refused(parse_yaml, text, "x.yaml")


def test_what_is_within_the_bounds_is_read():
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert str(parse_yaml(deep, "x")) == deep
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: [*a], y: 2}", "x")["c"] == {"x": 1, "y": 2}


def write(folder, **documents):
    for name, text in documents.items():
        (folder / f"{name}.yaml").write_text(text)


def test_includes_that_blow_up_are_refused(tmp_path):
    write(tmp_path, last="x: 1", **{f"n{i}": f"include: [n{i + 1}, n{i + 1}]" for i in range(30)})
    write(tmp_path, n30="include: last")
    assert "more than 100 includes" in refused(load_document, tmp_path / "n0.yaml")


def test_includes_of_much_are_refused(tmp_path):
    write(tmp_path, big=f"x: {'y' * 900_000}", top=f"include: [{','.join(['big'] * 20)}]")
    assert "longer than 8 MiB" in refused(load_document, tmp_path / "top.yaml")


def test_includes_that_nest_without_end_are_refused(tmp_path):
    around = "a: {" * 20 + "include: n{}" + "}" * 20
    write(tmp_path, **{f"n{i}": around.replace("n{}", f"n{i + 1}") for i in range(90)})
    write(tmp_path, n90="x: 1")
    assert "nested deeper than 50 levels" in refused(load_document, tmp_path / "n0.yaml")


@pytest.mark.parametrize("include", ["", "3", "{a: b}", "[3]", "[null]", "[[base]]", "true"])
def test_an_include_that_names_nothing_is_refused(tmp_path, include):
    write(tmp_path, top=f"include: {include}")
    assert "include = " in refused(load_document, tmp_path / "top.yaml")


@pytest.mark.parametrize("include", ["x" * 5000, "'a\\0b'", '"a\\0b"', ".", "/", "..", "/dev/zero"])
def test_an_include_that_is_no_file_is_refused(tmp_path, include):
    write(tmp_path, top=f"include: {include}")
    assert "is not found" in refused(load_document, tmp_path / "top.yaml")


@pytest.mark.parametrize(
    ("target", "message"), [("/dev/zero", "is no file"), (".", "Is a directory")]
)
def test_a_document_that_is_no_file_is_not_read(tmp_path, target, message):
    (tmp_path / "top.yaml").symlink_to(target)
    assert message in refused(load_document, tmp_path / "top.yaml")


def test_a_pipe_or_a_link_to_itself_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "is no file" in refused(load_document, tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    assert "cannot read" in refused(load_document, tmp_path / "loop.yaml")


def test_a_large_document_is_not_read_whole(tmp_path):
    with (tmp_path / "big.yaml").open("wb") as stream:
        stream.truncate(2**40)
    assert "longer than 1 MiB" in refused(load_document, tmp_path / "big.yaml")


def test_names_of_pipelines_that_no_file_can_have_are_refused():
    for name in ("x" * 5000, "a\0b", "../" * 2000, "a\nb"):
        assert "unknown pipeline" in refused(find_pipeline, name)


STAGES = {"a": {"kind": "merge_stats"}}


@pytest.mark.parametrize(
    "name", ["a/b", "../a", ".", "..", ".hidden", "", "a\nb", "\x1b[2J", "a\0", "é" * 51, "\ud800"]
)
def test_a_pipelines_name_must_be_a_file_name(name):
    document = {"name": name, "stages": STAGES}
    message = refused(lambda: build_pipeline(document, kinds=stage_kind))
    assert "pipeline.name = " in message


@pytest.mark.parametrize("name", ["a/b", "a.b", "a b", "\x1b", "x" * 101, "seed", "1a", ""])
def test_a_stages_name_must_be_usable(name):
    document = {"stages": {name: {"kind": "tokens", "recipe": {}}}}
    document["stages"][name]["kind"] = "train_tokenizer"
    message = refused(lambda: build_pipeline(document, kinds=stage_kind))
    assert "is not usable" in message


def test_overrides_are_bounded():
    assert "more than 50 words" in refused(
        apply_overrides, {"stages": STAGES}, [parse_override(f"a{'.b' * 1000}=1")]
    )
    assert "nested deeper" in refused(parse_override, f"a.b={'[' * 10_000}")


def test_messages_are_bounded():
    assert len(refused(parse_override, "x" * 10**6)) < 10_000
    assert nearest("x" * 10**6, ["y" * 10**6, "abc"]) == "valid: abc, " + "y" * 10**6
