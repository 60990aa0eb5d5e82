"""The stage evaluate_llm: known values of models that say what is known."""

import json
import math
from pathlib import Path

import pytest
import torch

from foundry_core.config.validation import validate
from foundry_core.data.robot.prompts import IMAGE
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.evaluation.language.likelihoods import Reader
from foundry_core.evaluation.quality import read_quality
from foundry_core.models.build import build_model
from foundry_core.models.config import (
    ConvViTConfig,
    ProjectorConfig,
    TransformerConfig,
    VLMConfig,
)
from foundry_core.models.io import save_model
from foundry_core.models.text_model import load_text_model
from foundry_core.pipeline.registry import stage_kind
from tests.tasks.training_stages import run_stage

ROWS = 264
LANGUAGE = TransformerConfig(vocab_size=ROWS, dim=16, n_layers=2, n_heads=2, ffn_dim=32, context=16)
VLM = VLMConfig(
    language=LANGUAGE,
    vision=ConvViTConfig(
        image_size=16, dim=8, n_layers=1, n_heads=2, stem_dims=(8, 8), stem_groups=4
    ),
    projector=ProjectorConfig(pixel_shuffle=2),
    image_token_id=258,
)
PIQA = [
    {"goal": "g", "sol1": "ab", "sol2": "a", "label": 1},
    {"goal": "g", "sol1": "a", "sol2": "abc", "label": 1},
    {"goal": "g", "sol1": "éa", "sol2": "abc", "label": 0},
]


def saved(folder: Path, config, *, even: bool = True) -> Path:
    """even: every token is as likely as any other. Bytes are tokens."""
    tokenizer = Tokenizer.train(["bytes"], 258)
    tokenizer.add_special(IMAGE)
    tokenizer.save(folder)
    model = build_model(config, seed=0)
    if even:
        language = getattr(model, "language", model)
        with torch.no_grad():
            language.head.weight.zero_()
    save_model(folder, model)
    return folder


def examined(tmp_path: Path, model: Path, **recipe) -> Path:
    kind = stage_kind("evaluate_llm")
    out = tmp_path / "out"
    checked = validate(kind.Recipe, recipe, "exam")
    kind.check(checked, {})
    run_stage(kind, out, tmp_path / "scratch", checked, {"model": {"m": model}}, resources={})
    return out


def lines(path: Path, records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def values(out: Path) -> dict[str, float | None]:
    return {f"{one.task}/{one.name}": one.value for one in read_quality(out).measures}


@pytest.mark.parametrize("config", [LANGUAGE, VLM], ids=["language", "vlm"])
def test_an_even_model_is_known_by_lengths(tmp_path, config):
    model = saved(tmp_path / "model", config)
    path = lines(tmp_path / "piqa.jsonl", PIQA)
    out = examined(tmp_path, model, questions={"piqa": {"format": "piqa", "path": path}})
    rows = [json.loads(line) for line in (out / "answers.jsonl").open()]
    each = math.log(ROWS)
    # A byte a token, and the space before it.
    assert rows[0]["likelihoods"] == pytest.approx([-3 * each, -2 * each], abs=1e-4)
    assert rows[2]["likelihoods"] == pytest.approx([-4 * each, -4 * each], abs=1e-4)
    # Fewest tokens; per character 1.5, 2: 2, 1.33: 2 (two characters), 1.33; per byte 1.33, 1.33.
    assert [row["chosen"] for row in rows] == [1, 0, 0]
    assert [row["chosen_norm"] for row in rows] == [0, 1, 1]
    assert [row["chosen_bytes"] for row in rows] == [0, 1, 0]
    assert values(out) == pytest.approx(
        {"piqa/acc": 2 / 3, "piqa/acc_norm": 1 / 3, "piqa/acc_bytes": 2 / 3}
    )


def test_text_is_measured_per_byte_over_windows(tmp_path):
    model = saved(tmp_path / "model", LANGUAGE)
    documents = [{"text": "one two three, and so on; é"}, {"text": "four"}]
    path = lines(tmp_path / "text.jsonl", documents)
    out = examined(tmp_path, model, text={"held_out": {"format": "jsonl", "path": path}})
    found = values(out)
    assert found["held_out/bits_per_byte"] == pytest.approx(math.log2(ROWS), abs=1e-5)
    assert found["held_out/byte_perplexity"] == pytest.approx(ROWS, rel=1e-5)
    assert found["held_out/loss"] == pytest.approx(math.log(ROWS), abs=1e-5)
    rows = [json.loads(line) for line in (out / "answers.jsonl").open()]
    assert [(row["tokens"], row["bytes"], row["words"]) for row in rows] == [(28, 28, 7), (4, 4, 1)]


def test_windows_predict_every_token_once_and_read_a_full_context(tmp_path):
    reader = Reader.of(load_text_model(saved(tmp_path, LANGUAGE), raw=True), 4, 8)
    eos = reader.text_model.tokenizer.eos_id
    tokens = reader.text_model.tokenizer.encode("abcdefghij")
    windows = reader.windows("abcdefghij")
    assert [list(one.tokens) for one in windows] == [tokens[:4], tokens[4:8], tokens[8:]]
    assert [list(one.context) for one in windows] == [[eos], [tokens[3]], tokens[5:8]]
    # One more than what is read is what is predicted from it.
    assert [len(one.context) + len(one.tokens) - 1 for one in windows] == [4, 4, 4]


def test_a_document_reads_the_same_in_windows_as_the_model_says(tmp_path):
    """Against logits over each window, computed here."""
    folder = saved(tmp_path, LANGUAGE, even=False)
    loaded = load_text_model(folder, raw=True)
    reader = Reader.of(loaded, None, 3)
    assert reader.context == 16
    tokens = loaded.tokenizer.encode("a text that is longer than sixteen bytes")
    known = [loaded.tokenizer.eos_id, *tokens]
    wanted = 0.0
    for start in range(0, len(tokens), 16):
        end = min(start + 16, len(tokens))
        first = max(0, end - 16)
        with torch.no_grad():
            logits = loaded.model(torch.tensor([known[first:end]])).log_softmax(-1)[0]
        wanted += sum(float(logits[i - first, tokens[i]]) for i in range(start, end))
    pieces = reader.windows("a text that is longer than sixteen bytes")
    assert sum(one.total for one in reader.score(pieces)) == pytest.approx(wanted, abs=1e-4)


def test_spaces_before_a_continuation_belong_to_it(tmp_path):
    reader = Reader.of(load_text_model(saved(tmp_path, LANGUAGE), raw=True), None, 8)
    encode = reader.text_model.tokenizer.encode
    one = reader.continuation("ab ", "c")
    assert (list(one.context), list(one.tokens)) == (encode("ab"), encode(" c"))
    empty = reader.continuation("", "c")
    assert list(empty.context) == [reader.text_model.tokenizer.eos_id]


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ({}, "asked nothing"),
        (
            {
                "questions": {"a": {"format": "piqa", "path": "x"}},
                "text": {"a": {"format": "jsonl", "path": "x"}},
            },
            "a name of questions and of a text",
        ),
        ({"questions": {"a": {"format": "piqua", "path": "x"}}}, "piqua"),
    ],
)
def test_an_exam_without_sense_is_refused_before_it_runs(tmp_path, recipe, problem):
    with pytest.raises(FoundryError, match=problem):
        examined(tmp_path, tmp_path, **recipe)


def test_an_unreadable_document_is_named_unless_it_is_tolerated(tmp_path):
    model = saved(tmp_path / "model", LANGUAGE)
    path = tmp_path / "text.jsonl"
    path.write_text('{"text": "one"}\n{"text": \n')
    source = {"held_out": {"format": "jsonl", "path": str(path)}}
    with pytest.raises(FoundryError, match="1 documents cannot be read"):
        examined(tmp_path, model, text=source)
    out = examined(tmp_path, model, text=source, max_skipped=1)
    assert len((out / "answers.jsonl").read_text().splitlines()) == 1
