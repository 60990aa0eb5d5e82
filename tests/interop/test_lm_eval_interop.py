"""evaluate_llm beside lm-evaluation-harness: one model, one set of files, equal numbers.

FOUNDRY_INTEROP_LM_EVAL names a Python that has it:
    python3 -m venv lm-eval && lm-eval/bin/pip install lm-eval[hf]==0.4.13
"""

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from foundry_core.evaluation.quality import read_quality
from foundry_core.pipeline.registry import stage_kind
from tests.hf_checkpoints import make_llm
from tests.tasks.training_stages import run_stage

PYTHON = os.environ.get("FOUNDRY_INTEROP_LM_EVAL", "")
ITEMS = 60
CONTEXT = 96
"""Tokens, which are bytes here: some questions are longer and lose their beginning."""
QUESTIONS = ("hellaswag", "arc", "boolq", "winogrande", "piqa")
WORDS = (
    "the",
    "old robot",
    "lifts",
    "a red cup",
    "über Öl,",
    "then",
    "it [step]",
    "opens",
    "waits",
)


def said(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))


def record(task: str, rng: random.Random) -> dict:
    if task == "hellaswag":
        endings = [f"{said(rng, 1, 9)} [title] {said(rng, 1, 3)}" for _ in range(4)]
        made = {"activity_label": "Lifting", "ctx_a": said(rng, 3, 9), "ctx_b": said(rng, 1, 3)}
        return {**made, "endings": endings, "label": str(rng.randrange(4))}
    if task == "arc":
        choices = {"text": [said(rng, 1, 7) for _ in "ABCD"], "label": list("ABCD")}
        return {"question": said(rng, 4, 9), "choices": choices, "answerKey": rng.choice("ABCD")}
    if task == "boolq":
        asked = {"question": said(rng, 3, 6), "passage": said(rng, 4, 40)}
        return {**asked, "label": rng.randrange(2)}
    if task == "winogrande":
        sentence = f"{said(rng, 3, 6)} because _ {said(rng, 1, 6)}."
        return {
            "sentence": sentence,
            "option1": "Ann",
            "option2": "the tall robot",
            "answer": rng.choice("12"),
        }
    return {
        "goal": said(rng, 2, 6),
        "sol1": said(rng, 1, 9),
        "sol2": said(rng, 1, 9),
        "label": rng.randrange(2),
    }


def write_data(folder: Path) -> None:
    rng = random.Random(7)
    folder.mkdir()
    for task in QUESTIONS:
        lines = [json.dumps(record(task, rng)) for _ in range(ITEMS)]
        (folder / f"{task}.jsonl").write_text("\n".join(lines) + "\n")
    texts = [json.dumps({"text": said(rng, 2, 80)}) for _ in range(ITEMS)]
    (folder / "text.jsonl").write_text("\n".join(texts) + "\n")


def ours(folder: Path, checkpoint: Path, data: Path) -> tuple[list[dict], dict[str, float]]:
    """Rows of answers, and measures by task/name."""
    run_stage(
        stage_kind("import_llm"),
        folder / "model",
        folder / "s1",
        {"path": str(checkpoint)},
        {},
    )
    recipe = {
        "context": CONTEXT,
        "questions": {t: {"format": t, "path": str(data / f"{t}.jsonl")} for t in QUESTIONS},
        "text": {"text": {"format": "jsonl", "path": str(data / "text.jsonl")}},
    }
    kind = stage_kind("evaluate_llm")
    run_stage(kind, folder / "exam", folder / "s2", recipe, {"model": {"m": folder / "model"}})
    rows = [json.loads(line) for line in (folder / "exam" / "answers.jsonl").open()]
    measures = read_quality(folder / "exam").measures
    return rows, {f"{one.task}/{one.name}": one.value for one in measures}


def theirs(folder: Path, checkpoint: Path, data: Path) -> dict:
    script = Path(__file__).with_name("lm_eval_scores.py")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    subprocess.run(
        [
            PYTHON,
            str(script),
            str(checkpoint),
            str(data),
            str(CONTEXT),
            str(folder / "theirs.json"),
        ],
        check=True,
        timeout=280,
        env={**environment, **offline},
    )
    return json.loads((folder / "theirs.json").read_text())


@pytest.mark.slow("another program in an environment of its own")
@pytest.mark.skipif(
    not PYTHON,
    reason="FOUNDRY_INTEROP_LM_EVAL names no Python with lm-evaluation-harness: python3 -m venv "
    "lm-eval && lm-eval/bin/pip install lm-eval[hf]==0.4.13",
)
def test_the_harness_says_the_same(tmp_path):
    checkpoint, data = make_llm(tmp_path / "checkpoint", "llama"), tmp_path / "data"
    write_data(data)
    wanted = theirs(tmp_path, checkpoint, data)
    rows, found = ours(tmp_path, checkpoint, data)
    for task in QUESTIONS:
        mine = [row["likelihoods"] for row in rows if row["task"] == task]
        assert len(mine) == ITEMS
        for one, other in zip(mine, wanted[task]["likelihoods"], strict=True):
            assert one == pytest.approx(other, abs=1e-4)
        measured = {n: v for n, v in wanted[task]["metrics"].items() if n in ("acc", "acc_norm")}
        assert "acc" in measured
        assert {n: found[f"{task}/{n}"] for n in measured} == pytest.approx(measured, abs=1e-9)
    nats = [[-row["nats"]] for row in rows if row["task"] == "text"]
    for one, other in zip(nats, wanted["text"]["likelihoods"], strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-4)
    for name in ("bits_per_byte", "byte_perplexity", "word_perplexity"):
        assert found[f"text/{name}"] == pytest.approx(wanted["text"]["metrics"][name], rel=1e-5)
