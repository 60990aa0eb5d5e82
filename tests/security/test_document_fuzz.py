"""Whatever bytes a document has: it becomes a pipeline, or is refused in one line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.config.documents import CONFIG_ROOT, load_document
from foundry_core.config.overrides import apply_overrides, parse_override
from foundry_core.errors import FoundryError
from foundry_core.pipeline.graph import build_pipeline
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import identify

DEMO = (CONFIG_ROOT / "pipelines" / "demo.yaml").read_text()
PIECES = [
    *("[", "]", "{", "}", ": ", "- ", "\n", "\n  ", "? ", ", ", "&a ", "*a", "<<: ", "include: "),
    *("!!int ", "!!set ", "!x ", "'", '"', "|\n", ">-\n", "#", "---\n", "%YAML 1.1\n", "\\", "\0"),
    *("stages:", "kind: ", "train_llm", "recipe: ", "inputs: ", "seed: ", "import: ", "name: "),
    *("0x", "0b_", "1:60", "9" * 120, "1e999", ".inf", ".nan", "~", "null", "demo", "../demo"),
    *("\x1b[2J", "\ud800", "é", "\u2028", "\ufeff", "training/demo", "digest: ", "/"),
]
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=30).map("".join)
CUTS = st.tuples(st.integers(0, len(DEMO)), st.integers(0, 40))


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "document.yaml"


def check(document, data, overrides=()):
    document.write_bytes(data)
    try:
        changed = apply_overrides(load_document(document), map(parse_override, overrides))
        identify(build_pipeline(changed, kinds=stage_kind))
    except FoundryError as error:
        assert str(error).isprintable() and len(str(error)) < 10_000
        assert error.hint


@settings(max_examples=300, deadline=20_000)
@given(TEXTS)
def test_any_text_is_a_pipeline_or_is_refused_in_one_line(document, text):
    check(document, text.encode(errors="surrogatepass"))


@settings(max_examples=100, deadline=20_000)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_in_one_line(document, data):
    check(document, data)


@settings(max_examples=150, deadline=20_000)
@given(CUTS, TEXTS)
def test_a_pipeline_with_a_piece_replaced_is_built_or_refused(document, cut, text):
    start, length = cut
    changed = DEMO[:start] + text + DEMO[start + length :]
    check(document, changed.encode(errors="surrogatepass"))


@settings(max_examples=80, deadline=20_000)
@given(st.sampled_from(["llm", "evaluate.episodes_per_task", "seed", "text.source"]), TEXTS)
def test_any_override_is_taken_or_refused_in_one_line(document, path, text):
    check(document, DEMO.encode(), [f"{path}={text}"])
