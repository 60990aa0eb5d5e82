import pytest

from foundry_core.config.documents import deep_merge, find_pipeline, load_document
from foundry_core.config.parsing import parse_yaml
from foundry_core.errors import FoundryError


def test_includes_merge_below_own_keys(tmp_path):
    (tmp_path / "base.yaml").write_text("model: {width: 64, depth: 2, tags: [a, b]}\nseed: 1\n")
    (tmp_path / "top.yaml").write_text("include: base\nmodel: {depth: 3, tags: [c]}\n")
    document = load_document(tmp_path / "top.yaml")
    assert document == {"model": {"width": 64, "depth": 3, "tags": ["c"]}, "seed": 1}


def test_includes_inside_a_mapping(tmp_path):
    (tmp_path / "preset.yaml").write_text("width: 64\ndepth: 2\n")
    (tmp_path / "top.yaml").write_text("stages: {llm: {recipe: {include: preset, depth: 4}}}\n")
    document = load_document(tmp_path / "top.yaml")
    assert document["stages"]["llm"]["recipe"] == {"width": 64, "depth": 4}


def test_circular_include_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("include: b\n")
    (tmp_path / "b.yaml").write_text("include: a\n")
    with pytest.raises(FoundryError, match=r"a\.yaml → b\.yaml → a\.yaml"):
        load_document(tmp_path / "a.yaml")


def test_an_include_that_is_not_found_says_where_it_was_looked_for(tmp_path):
    """And that a path counts from the file, where it is written as seen from above."""
    folder = tmp_path / "mappings"
    folder.mkdir()
    (folder / "mine.yaml").write_text("hz: 7\n")
    for name, hint in (
        ("mappings/mine.yaml", "did you mean 'mine.yaml'"),
        ("mappings/drod", "mappings/droid"),
    ):
        (folder / "arm.yaml").write_text(f"include: {name}\n")
        with pytest.raises(FoundryError, match=hint) as refused:
            load_document(folder / "arm.yaml")
        assert f"is not found, neither in {folder}, the folder of the file" in refused.value.message
        assert "nor among the shipped documents" in refused.value.message
    (folder / "arm.yaml").write_text("include: mine.yaml\n")
    assert load_document(folder / "arm.yaml") == {"hz": 7}


def test_duplicate_keys_are_refused():
    with pytest.raises(FoundryError, match="'seed' stands twice"):
        parse_yaml("seed: 1\nseed: 2\n", "x.yaml")


@pytest.mark.parametrize(
    ("text", "value"), [("2e6", 2e6), ("1e-3", 1e-3), ("3", 3), ("[1, a]", [1, "a"]), ("yes", True)]
)
def test_values(text, value):
    assert parse_yaml(text, "value") == value


def test_broken_yaml_names_file_and_line():
    with pytest.raises(FoundryError, match=r"x\.yaml, line 2"):
        parse_yaml("a: 1\nb: }\n", "x.yaml")


def test_unknown_pipeline_offers_the_nearest():
    with pytest.raises(FoundryError, match="did you mean 'demo'"):
        find_pipeline("demmo")


def test_deep_merge_replaces_lists_and_keeps_siblings():
    assert deep_merge({"a": {"b": [1], "c": 2}}, {"a": {"b": [3]}}) == {"a": {"b": [3], "c": 2}}


def test_merge_keys_lie_below_own_keys():
    text = "base: &b {x: 1, y: 2}\ntop: {<<: *b, y: 3}\n"
    assert parse_yaml(text, "x.yaml")["top"] == {"x": 1, "y": 3}
