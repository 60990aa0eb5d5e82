import json

import duckdb
import pytest
from history import LR_1, LR_2, digest

from foundry_core.errors import FoundryError
from foundry_core.lineage import queries


def test_runs_tell_what_was_reused_and_what_came_out(lineage, told):
    found = queries.runs(lineage)
    assert [run["run_id"] for run in found] == ["third", told.names.second, told.names.first]
    second, first = found[1], found[2]
    assert (first["ran"], first["reused"], second["ran"], second["reused"]) == (4, 0, 2, 2)
    assert first["scores"] == {"eval": {"success_rate": 0.4, "n": 10}}
    assert second["overrides"] == [["vla.training.lr", LR_2]]
    assert len(queries.runs(lineage, limit=1)) == 1
    json.dumps(found)


def test_scores_leave_crashes_out_and_carry_wilsons_interval(lineage, told):
    rows = queries.show(lineage, told.names.evals[1]["key"])["scores"]
    whole = next(row for row in rows if row["task"] == "all")
    assert (whole["n"], whole["successes"], whole["crashed"]) == (10, 9, 2)
    assert whole["success_rate"] == 0.9
    assert whole["low"] == pytest.approx(0.5958500, abs=1e-6)
    assert whole["high"] == pytest.approx(0.9821238, abs=1e-6)
    assert whole["policy_key"] == told.names.policies[1]["key"]
    assert sorted(row["task"] for row in rows) == ["all", "push", "reach"]


def test_cost_and_savings_of_a_run(lineage, told):
    compute = queries.show(lineage, told.names.second)["compute"]
    assert (compute["attempts"], compute["reused"]) == (2, 2)
    assert (compute["spent_seconds"], compute["saved_seconds"]) == (20.0, 20.0)
    assert (compute["spent_gpu_seconds"], compute["saved_gpu_seconds"]) == (10.0, 10.0)
    third = queries.show(lineage, "third")["compute"]
    assert (third["spent_seconds"], third["saved_seconds"]) == (0, 10.0), "a cut-off saves too"


def test_show_an_artifact_by_prefix_and_alias(lineage, told):
    key = told.names.policies[1]["key"]
    for ref in (key, key[:8], "policy@best"):
        assert queries.show(lineage, ref)["key"] == key
    shown = queries.show(lineage, key)
    assert shown["recipe"] == {"training": {"lr": LR_2, "steps": 100}}
    assert [edge["role"] for edge in shown["inputs"]] == ["robot", "stats"]
    assert [use["kind"] for use in shown["used_by"]] == ["evaluate"]
    assert shown["attempts"][0]["git_dirty"] is True
    assert shown["aliases"][0]["alias"] == "policy@best"
    assert shown["bytes"] == 201


def test_a_lost_attempt_is_closed_and_the_next_of_its_name_is_not(lineage, told):
    attempts = queries.show(lineage, told.names.robot["key"])["attempts"]
    assert [(a["run_id"], a["state"]) for a in attempts] == [
        ("killed-run", "lost"),
        (told.names.first, "committed"),
    ]
    assert queries.sql(lineage, "select * from in_flight") == []


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("abc", "at least 8 digits"),
        ("deadbeefdead", "no key or alias is deadbeefdead"),
        ("policy@worst", "no key or alias is policy@worst"),
    ],
)
def test_references_that_do_not_resolve(lineage, ref, message):
    for ask in (queries.show, queries.trace, queries.why):
        with pytest.raises(FoundryError, match=message):
            ask(lineage, ref)


def test_an_ambiguous_prefix_is_refused(log, tmp_path):
    from foundry_core.lineage.index import Index

    for end in ("1", "2"):
        artifact = {"key": "abcdef12" + end * 56, "kind": "x"}
        log.append("artifact_committed", {"artifact": artifact})
    Index(tmp_path / queries.INDEX_NAME, log).advance()
    with queries.connect(tmp_path) as connection:
        with pytest.raises(FoundryError, match="2 keys begin with abcdef12"):
            queries.resolve(connection, "abcdef12")
        assert queries.resolve(connection, "abcdef121") == "abcdef12" + "1" * 56


def test_trace_reaches_every_byte_recipe_and_commit(lineage, told):
    names = told.names
    for ref in (names.second, names.evals[1]["key"][:12]):
        (root,) = queries.trace(lineage, ref)
        assert root["kind"] == "evaluate" and root["scores"][0]["task"] == "all"
        (policy,) = root["inputs"]
        assert policy["recipe"]["training"]["lr"] == LR_2
        assert policy["git_commit"].startswith("c0ffee") and policy["git_dirty"]
        robot, stats = policy["inputs"]
        assert (robot["role"], stats["role"]) == ("robot", "stats")
        assert [file["sha256"] for file in robot["file_list"]] == [
            digest(names.robot["key"], 0),
            digest(names.robot["key"], 1),
        ]
        assert robot["sources"] == {"demos": digest("raw")}
        assert robot["present"] is False, "what gc took is still known"
        assert stats["inputs"] == [
            {
                "role": "datasets",
                "key": names.robot["key"],
                "kind": "convert_robot",
                "repeated": True,
            }
        ]
        json.dumps(root)


def test_trace_of_a_cut_off_names_the_artifact_whose_bytes_it_shares(lineage, told):
    (root,) = queries.trace(lineage, told.names.twin["key"])
    roles = {child["role"]: child["key"] for child in root["inputs"]}
    assert roles == {"datasets": told.names.robot["key"], "same bytes": told.names.stats["key"]}


def test_diff_of_runs_and_of_results_finds_the_one_change(lineage, told):
    names = told.names
    change = {"path": "recipe.training.lr", "old": LR_1, "new": LR_2}
    assert queries.diff(lineage, names.first, names.second) == [{"place": "vla"} | change]
    evals = [key["key"][:10] for key in names.evals]
    assert queries.diff(lineage, *evals) == [{"place": "policy"} | change]
    assert queries.diff(lineage, names.first, names.first) == []


def test_why_gives_reasons_and_the_difference_to_what_came_before(lineage, told):
    names = told.names
    found = queries.why(lineage, names.policies[1]["key"])
    assert found["previous"] == names.policies[0]["key"]
    (entry,) = found["runs"]
    assert entry["reasons"] == [
        {"category": "CONFIG", "path": "vla.training.lr", "old": LR_1, "new": LR_2}
    ]
    assert [change["path"] for change in found["changes"]] == ["recipe.training.lr"]
    reused = queries.why(lineage, names.stats["key"])
    actions = [(entry["run_id"], entry["action"]) for entry in reused["runs"]]
    assert actions == [(names.first, "run"), (names.second, "reuse")]


def test_downstream_ends_at_the_evaluations(lineage, told):
    names = told.names
    query = f"select key from downstream('{names.robot['key'][:9]}') where kind = 'evaluate'"
    found = {row["key"] for row in queries.sql(lineage, query)}
    assert found == {evaluation["key"] for evaluation in names.evals}


def test_sql_returns_plain_rows(lineage, told):
    query = "select run_id, started_at, overrides from pipeline_run order by 1 limit 1"
    assert queries.sql(lineage, query) == [
        {
            "run_id": told.names.first,
            "started_at": "2026-05-01T10:00:02.000000Z",
            "overrides": None,
        }
    ]
    (episode,) = queries.sql(lineage, "select seed from episode order by seed desc limit 1")
    assert episode["seed"] == 2**63 + 11


@pytest.mark.parametrize(
    "query",
    [
        "selct 1",
        "select * from no_such_table",
        "delete from metric",
        "copy metric to '/tmp/metric.csv'",
        "select * from read_csv('/etc/passwd')",
        "attach '/tmp/other.duckdb'",
    ],
)
def test_sql_errors_are_for_the_user_and_nothing_can_be_written(lineage, query):
    with pytest.raises(FoundryError) as raised:
        queries.sql(lineage, query)
    assert raised.value.hint and "\n" not in raised.value.message


def test_a_plain_duckdb_connection_has_views_and_macros_too(told):
    with duckdb.connect(told.home / queries.INDEX_NAME, read_only=True) as connection:
        query = f"select count(*) from upstream('{told.names.evals[0]['key']}')"
        assert connection.execute(query).fetchone() == (4,)


def test_no_index_yet(tmp_path):
    with pytest.raises(FoundryError, match="no lineage index"):
        queries.connect(tmp_path)
    (tmp_path / queries.INDEX_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(FoundryError, match="cannot be opened"):
        queries.connect(tmp_path)


def test_long_chains_and_wide_histories_end(log, tmp_path):
    from foundry_core.lineage.index import Index

    def key(number):
        return digest("chain", number)

    for number in range(120):
        edges = [{"slot": "from", "label": "x", "key": key(number - 1)}] if number else []
        edges += [{"slot": "skip", "label": "x", "key": key(number - 2)}] if number > 1 else []
        artifact = {"key": key(number), "kind": "link", "inputs": edges}
        log.append("artifact_committed", {"artifact": artifact})
    Index(tmp_path / queries.INDEX_NAME, log).advance()
    with queries.connect(tmp_path) as connection:
        found = queries.sql(connection, f"select * from upstream('{key(119)}')")
        depth = {row["key"]: row["depth"] for row in found}
        assert len(depth) == 120
        assert (depth[key(119)], depth[key(118)], depth[key(117)]) == (0, 1, 1)
        assert depth[key(39)] == 40 and depth[key(38)] is None
