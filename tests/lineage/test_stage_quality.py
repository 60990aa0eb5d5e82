"""From the language model to success in one query."""

import pytest
from history import History, scores, stage

from foundry_core.lineage.event_types import AblationFinished, AblationStarted
from foundry_core.lineage.index import Index
from foundry_core.lineage.queries import INDEX_NAME, connect, sql

COLUMNS = (
    *("variant", "stage", "llm_loss", "bits_per_byte", "caption_loss", "caption_f1"),
    *("pixel_error_px", "action_error_mm", "success_rate", "n", "low"),
)


def measure(task, name, value, n=10):
    return {"task": task, "name": name, "value": value, "n": n, "low": None, "high": None}


def pipeline(steps: int, seed: int = 0):
    """llm → vlm → vla → eval, each model examined; a control whose policy has no VLM."""
    llm = stage("llm", "train_llm", {"d": 1, "seed": seed}, {})
    vlm = stage("vlm", "train_vlm", {"steps": steps}, {"llm": llm})
    vla = stage("vla", "train_vla", {}, {"vlm": vlm})
    plain = stage("plain", "train_vla", {"plain": True}, {})
    return {
        "llm": llm,
        "vlm": vlm,
        "vla": vla,
        "plain": plain,
        "llm_exam": stage("llm_exam", "evaluate_llm", {}, {"model": llm}),
        "after": stage("after", "evaluate_llm", {"x": 1}, {"model": vlm}),
        "vlm_exam": stage("vlm_exam", "evaluate_vlm", {}, {"model": vlm}),
        "eval": stage("eval", "evaluate", {}, {"policy": vla}),
        "eval_plain": stage("eval_plain", "evaluate", {}, {"policy": plain}),
    }


def run(history, name, steps, caption_f1, errors, successes, known=(), seed=0, chunk=()):
    """known: stages that an earlier run has built. chunk: ms, passes of the evaluated policy."""
    parts = pipeline(steps, seed)
    history.start(name, [*parts.values()], ablation={"id": "ab", "variant": f"steps={steps}"})
    rows = {
        "llm_exam": [measure("t", "loss", 3.0 + seed), measure("t", "bits_per_byte", 1.5)],
        "after": [measure("a", "loss", 9.0), measure("a", "bits_per_byte", 9.0)],
        "vlm_exam": [
            measure("c", "loss", 0.25),
            measure("c", "token_f1", caption_f1),
            measure("c", "pixel_error_px", 4.0),
            measure("c/hand", "pixel_error_px", 8.0),
        ],
    }
    metrics = [
        {"step": step, "name": f"validation/{kind}/robot/position_mm", "value": value}
        for kind, by_step in errors.items()
        for step, value in by_step.items()
    ]
    for label, part in parts.items():
        if label in known:
            history.resolve(name, part, "reuse", part["key"], "recipe")
            continue
        more = {"measure_rows": rows.get(label, [])}
        if label == "vla":
            more["metric_rows"] = metrics
        if label == "eval" and chunk:
            names = {"chunk_ms": chunk[0], "chunk_cpu_ms": 2 * chunk[0]}
            more["measure_rows"] = [
                measure("policy", name, value, chunk[1]) for name, value in names.items()
            ]
        if label in ("eval", "eval_plain"):
            more["score_rows"] = [scores(successes, 10, 0, 0.1, 0.9)]
        history.build(name, part, **more)
    history.finish(name, seconds=1, metrics={})


@pytest.fixture
def table(tmp_path, log):
    history = History(log)
    run(history, "r1", 0, 0.1, {"raw": {10: 50.0, 20: 40.0}}, 6)
    known = ("llm", "llm_exam", "plain", "eval_plain")
    errors = {"raw": {10: 30.0, 20: 21.0}, "ema": {10: 25.0, 20: 20.0}}
    run(history, "r2", 9, 0.8, errors, 9, known)
    Index(tmp_path / INDEX_NAME, log).advance()
    with connect(tmp_path) as connection:
        yield connection


def test_one_row_per_evaluated_policy_with_what_its_models_score(table):
    rows = sql(table, f"select {', '.join(COLUMNS)} from stage_quality order by run_id, stage")
    shared = (3.0, 1.5, 0.25)
    assert [tuple(row.values()) for row in rows] == [
        ("steps=0", "eval", *shared, 0.1, 4.0, 40.0, 0.6, 10, 0.1),
        ("steps=0", "eval_plain", None, None, None, None, None, None, 0.6, 10, 0.1),
        ("steps=9", "eval", *shared, 0.8, 4.0, 20.0, 0.9, 10, 0.1),
        ("steps=9", "eval_plain", None, None, None, None, None, None, 0.6, 10, 0.1),
    ]


def test_measures_of_a_run_are_those_it_reused_too(table):
    query = "select stage, task, value from run_measures where run_id = 'r2' and name = 'loss'"
    found = {(row["stage"], row["task"]): row["value"] for row in sql(table, query)}
    assert found == {("llm_exam", "t"): 3.0, ("after", "a"): 9.0, ("vlm_exam", "c"): 0.25}


def test_an_evaluation_without_exams_has_its_row(lineage, history):
    rows = sql(lineage, "select run_id, llm_loss, success_rate from stage_quality order by run_id")
    assert [(row["llm_loss"], row["success_rate"]) for row in rows] == [(None, 0.4), (None, 0.9)]


def ablation_row(name, **values):
    none = {"old": None, "new": None, "path": None, "success": 0.5, "n": 10, "low": 0, "high": 1}
    return {**none, "p_value": None, "decision": "", "letters": "a", "variant": name, **values}


@pytest.fixture
def seeds(tmp_path, log):
    """Three seed runs of the base and of steps=9; the LLM of a seed is both variants' own."""
    history = History(log)
    for seed, (f1, better) in enumerate(((0.1, 0.7), (0.2, 0.8), (0.3, 0.9))):
        for steps, score, won in ((0, f1, 4 + seed), (9, better, 7 + seed)):
            name = f"ab.{steps}.{seed}"
            known = ("llm", "llm_exam") if steps else ()
            chunk = (10.0 + seed + 5 * bool(steps), 7)
            run(history, name, steps, score, {"raw": {10: 50.0 - steps}}, won, known, seed, chunk)
    log.append(
        AblationStarted(
            ablation_id="ab",
            base_pipeline="p",
            question="why?",
            variants=[{"variant": f"steps={n}", "overrides": []} for n in (0, 9)],
        )
    )
    changed = {"path": "vlm.steps", "old": 0, "new": 9, "decision": "better than the base"}
    rows = [ablation_row("steps=0", decision="the base"), ablation_row("steps=9", **changed)]
    log.append(AblationFinished(ablation_id="ab", status="succeeded", effects=rows))
    Index(tmp_path / INDEX_NAME, log).advance()
    with connect(tmp_path) as connection:
        yield connection


def test_every_measure_of_a_variant_over_its_seeds(seeds):
    rows = sql(seeds, "from ablation_quality where variant = 'steps=9' order by position")
    found = {row["measure"]: row for row in rows}
    order = ["llm_loss", "bits_per_byte", "caption_loss", "caption_f1", "pixel_error_px"]
    assert [row["measure"] for row in rows][:5] == order
    f1 = found["caption_f1"]
    assert (f1["seeds"], f1["runs"], f1["question"]) == (3, [0.7, 0.8, 0.9], "why?")
    assert f1["change"] == "vlm.steps: 0 → 9"
    # By hand: mean .8, deviation .1: t(2) .1 / sqrt 3 = .2484; the difference .6 with Welch's
    # degrees 4: 2.776 · sqrt(2 / 3) · .1 = .2267. A share ends at 1.
    assert f1["low"] == pytest.approx(0.8 - 0.2484, abs=1e-4)
    assert f1["high"] == 1.0
    assert f1["difference"] == pytest.approx(0.6)
    assert f1["difference_low"] == pytest.approx(0.6 - 0.2267, abs=1e-4)
    loss = found["llm_loss"]
    assert loss["runs"] == [3.0, 4.0, 5.0]
    assert (loss["difference"], loss["difference_low"]) == (0.0, 0.0), "the same models"
    error = found["action_error_mm"]
    assert (error["difference"], error["difference_low"]) == (-9.0, None), "no run scatters"
    assert found["success_rate"]["decision"] == "better than the base"
    chunk = found["chunk_ms"]
    assert (chunk["runs"], chunk["mean"], chunk["difference"]) == ([15.0, 16.0, 17.0], 16.0, 5.0)
    # By hand: t(2) / sqrt 3 = 2.4842, Welch 2.776 · sqrt(2 / 3) = 2.2666.
    assert chunk["low"] == pytest.approx(16 - 2.4842, abs=1e-3)
    assert chunk["difference_high"] == pytest.approx(5 + 2.2666, abs=1e-3)
    assert found["chunk_cpu_ms"]["mean"] == 32.0
    assert [row["measure"] for row in rows][-4:] == [
        "chunk_ms", "chunk_cpu_ms", "seconds", "gpu_seconds",
    ]  # fmt: skip
    assert f1["decision"] is None


def test_students_t_without_a_library(lineage):
    stats = pytest.importorskip("scipy.stats")
    (row,) = sql(lineage, "select [t95(d) for d in range(1, 100)] as t")
    assert row["t"] == pytest.approx(stats.t.ppf(0.975, range(1, 100)), abs=2e-3)
