"""Every query of docs/lineage.md runs, and finds something in a history that has everything."""

import re
from pathlib import Path

import pytest
from history import digest

from foundry_core.lineage.queries import sql

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "lineage.md"
QUERIES = re.findall(r"```sql\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
EMPTY = ("in_flight",)


def fill(query: str, names) -> str:
    values = {
        "shard": digest(names.robot["key"], 1),
        "evaluation_a": names.evals[0]["key"][:12],
        "evaluation_b": names.evals[1]["key"][:12],
        "dataset": names.robot["key"][:12],
        "ablation": "ab-1",
    }
    return re.sub(r"':(\w+)'", lambda match: f"'{values[match[1]]}'", query)


@pytest.mark.parametrize("query", QUERIES)
def test_query(lineage, history, query):
    rows = sql(lineage, fill(query, history.names))
    assert bool(rows) != any(view in query for view in EMPTY)


def ask(lineage, history, part: str):
    (query,) = [query for query in QUERIES if part in query]
    return sql(lineage, fill(query, history.names))


def test_runs_that_used_a_shard(lineage, history):
    found = {(row["run_id"], row["stage"]) for row in ask(lineage, history, "sha256 = ':shard'")}
    first, second = history.names.first, history.names.second
    both = {(run, name) for run in (first, second) for name in ("robot", "stats", "vla", "eval")}
    assert found == both | {("third", "stats")}


def test_what_changed_between_two_rates(lineage, history):
    (row,) = ask(lineage, history, "from config_diff")
    assert (row["place"], row["path"]) == ("policy", "recipe.training.lr")


def test_savings(lineage, history):
    shares = {
        row["run_id"]: row["share_of_time_saved"]
        for row in ask(lineage, history, "share_of_time_saved")
    }
    assert shares[history.names.second] == 0.5
    assert shares[history.names.first] == 0


def test_evaluations_downstream_of_a_data_set(lineage, history):
    rates = [row["success_rate"] for row in ask(lineage, history, "from downstream(':dataset')")]
    assert rates == [0.9, 0.4]


def test_the_document_names_every_table_and_view(lineage):
    text = DOCUMENT.read_text()
    internal = {"meta", "event", "segment", "edge"}
    listed = sql(
        lineage,
        """select table_name as name from information_schema.tables
        where table_schema = 'main' and table_catalog = 'lineage'""",
    )
    missing = {row["name"] for row in listed if f"`{row['name']}`" not in text} - internal
    assert not missing
