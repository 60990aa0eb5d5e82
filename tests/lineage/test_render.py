"""What the terminal shows of lineage: every change in full, nothing that says nothing."""

import io
import re

from history import LR_1, LR_2, digest
from rich.console import Console

from foundry_core.lineage import queries, render


def shown(renderable, width: int = 200) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False).print(renderable)
    return stream.getvalue()


def test_the_tree_shows_rate_with_interval_recipe_digests_and_commit(lineage, history):
    found = queries.trace(lineage, history.names.second)
    text = shown(render.trace_tree(found, whole=True))
    for part in (
        "success 0.900 (9/10, 95% 0.55-0.99, 2 crashed)",
        f"training.lr={LR_2}",
        digest(history.names.robot["key"], 1),
        "commit c0ffee",
        "uncommitted changes",
        "(shown above)",
        "no longer in the store",
    ):
        assert part in text


def test_a_short_tree_has_changed_settings_short_digests_and_counts_files(lineage, history):
    found = queries.trace(lineage, history.names.second)
    whole = shown(render.trace_tree(found, whole=True))
    text = shown(render.trace_tree(found, changed=lambda kind, recipe: {"only": kind}))
    assert "only=train_vla" in text and "training.lr=" not in text
    assert f"training.lr={LR_2}" in shown(render.trace_tree(found))  # nobody knows the defaults
    assert "sha256" in whole and "sha256" not in text
    assert not re.search(r"[0-9a-f]{40}", text)
    files = [file for file in found[0]["file_list"] if file["role"] == "output"]
    size = sum(file["size"] for file in files)
    assert f"{len(files)} file{'s' if len(files) > 1 else ''}, {size:,} B" in text


def test_tables_shorten_keys_and_escape_markup():
    rows = [{"key": "a" * 64, "rate": 0.123456, "note": "[bold]x", "none": None}]
    assert shown(render.table_of(rows)).split() == [
        "key",
        "rate",
        "note",
        "none",
        "a" * 12,
        "0.1235",
        "[bold]x",
    ]


def test_narrow_tables_fold_long_texts_and_keep_names_and_numbers_whole():
    rows = [{"run_id": "20261121T080058-demo-24f137", "seconds": 611.8, "error": "word " * 30}]
    text = shown(render.table_of(rows), width=70)
    assert "20261121T080058-demo-24f137" in text and "611.8" in text
    assert text.count("word") == 30


def test_why_says_what_changed_in_words(lineage, history):
    found = queries.why(lineage, history.names.policies[1]["key"])
    text = shown(render.why_tree(found))
    assert f"{history.names.second}, stage vla: run" in text
    assert f"vla.training.lr: {LR_1} → {LR_2}" in text
    assert f"against the one before it, {history.names.policies[0]['key'][:12]}" in text
    assert f"recipe.training.lr: {LR_1} → {LR_2}" in text
    alone = {"key": "a" * 64, "runs": [], "previous": None, "changes": []}
    assert "no run has it" in shown(render.why_tree(alone))


def test_a_difference_shows_leaves_and_sums_up_what_only_one_side_has(lineage, history):
    names = history.names
    changes = queries.diff(lineage, names.first, names.second)
    changes += [
        {"place": "vla_2", "path": "kind", "old": None, "new": "train_vla"},
        {"place": "vla_2", "path": "seed", "old": None, "new": 1},
    ]
    lines = shown(render.diff_tree(changes, "A", "B")).splitlines()
    assert [line.strip("│├└─ ") for line in lines] == [
        "A → B",
        "vla",
        f"recipe.training.lr: {LR_1} → {LR_2}",
        "vla_2",
        "only in the new one",
    ]
    assert "nothing differs" in shown(render.diff_tree([], "A", "B"))


def test_records_show_leaves_and_tables_without_blanks(lineage, history):
    text = shown(render.record(queries.show(lineage, history.names.policies[1]["key"])))
    assert f"training.lr: {LR_2}" in text
    assert "linked_to" not in text, "it is null"
    assert "policy@best" in text and "committed" in text
    run = shown(render.record(queries.show(lineage, history.names.second)))
    assert f"vla.training.lr: {LR_1} → {LR_2}" in run, "reasons are sentences in tables too"


def test_the_list_of_runs_shows_scores_and_changes(lineage):
    text = shown(render.runs_table(queries.runs(lineage)))
    assert "eval 0.400 (n=10)" in text
    assert f"vla.training.lr={LR_2}" in text
    assert "variant" not in text
