import json

import duckdb
import pytest
from history import LR_1, LR_2, History, digest, stage

from foundry_core.errors import FoundryError
from foundry_core.lineage import answers, queries
from foundry_core.lineage.event_types import ArtifactCommitted, AttemptFinished
from foundry_core.lineage.index import Index


def test_runs_show_what_was_reused_and_what_came_out(lineage, history):
    found = queries.runs(lineage)
    assert [run["run_id"] for run in found] == ["third", history.names.second, history.names.first]
    second, first = found[1], found[2]
    assert (first["ran"], first["reused"], second["ran"], second["reused"]) == (4, 0, 2, 2)
    assert first["scores"] == {"eval": {"success_rate": 0.4, "n": 10}}
    assert second["overrides"] == [["vla.training.lr", LR_2]]
    assert len(queries.runs(lineage, limit=1)) == 1
    json.dumps(found)


def test_scores_are_those_that_the_evaluation_wrote(lineage, history):
    rows = queries.show(lineage, history.names.evals[1]["key"])["scores"]
    whole = next(row for row in rows if row["task"] == "all")
    assert (whole["n"], whole["successes"], whole["crashed"]) == (10, 9, 2)
    assert (whole["success_rate"], whole["low"], whole["high"]) == (0.9, 0.55, 0.99)
    assert whole["policy_key"] == history.names.policies[1]["key"]
    assert sorted(row["task"] for row in rows) == ["all", "push", "reach"]


def test_without_written_scores_episodes_are_counted_and_no_interval_is_shown(lineage, history):
    rows = queries.show(lineage, history.names.evals[0]["key"])["scores"]
    shown = [[row[n] for n in ("task", "n", "successes", "success_rate", "low")] for row in rows]
    assert shown == [
        ["all", 10, 4, 0.4, None],
        ["push", 5, 2, 0.4, None],
        ["reach", 5, 2, 0.4, None],
    ]


def test_the_types_of_rows_name_their_columns(lineage, history):
    names = history.names
    key = names.evals[1]["key"]
    (root,), (nodes, edges) = queries.trace(lineage, key), queries.graph_of(lineage, key)
    why, shown = queries.why(lineage, names.policies[1]["key"]), queries.show(lineage, key)
    for row, kind in (
        (queries.show(lineage, names.second)["stages"][0], answers.StageRow),
        (shown["scores"][0], answers.ScoreRow),
        (shown["file_list"][0], answers.FileRow),
        (why, answers.WhyAnswer),
        (why["runs"][0], answers.WhyRun),
        (why["changes"][0], answers.Change),
        (nodes[0], answers.GraphNode),
        (edges[0], answers.GraphEdge),
    ):
        assert row.keys() == kind.__annotations__.keys(), kind
    assert root.keys() | {"repeated"} == answers.TraceNode.__annotations__.keys()


def test_a_saving_of_an_ablation_counts_once(log, tmp_path):
    history = History(log)
    text, model = stage("text", "emit", {"v": 1}, {}), stage("model", "train", {"v": 2}, {})
    history.start("before", [text])
    history.build("before", text)
    history.start("ab", [text, model])
    history.resolve("ab", text, "reuse", text["key"], "recipe")
    history.build("ab", model)
    for replicate in ("ab.base", "ab.lr"):
        history.start(replicate, [text, model], parent="ab")
        history.resolve(replicate, text, "reuse", text["key"], "recipe")
        history.resolve(replicate, model, "reuse", model["key"], "recipe")
    Index(tmp_path / queries.INDEX_NAME, log).advance()
    with queries.connect(tmp_path) as connection:
        query = "select run_id, reused, spent_seconds, saved_seconds from compute_spent_saved"
        found = {row.pop("run_id"): tuple(row.values()) for row in queries.sql(connection, query)}
    assert found == {
        "before": (0, 10.0, 0),
        "ab": (1, 10.0, 10.0),
        "ab.base": (2, 0, 0),
        "ab.lr": (2, 0, 0),
    }


def test_one_column_says_where_a_job_ran(lineage, history):
    run = queries.show(lineage, history.names.first)
    assert run["job_ref"] == "prefect:flow-run/f1"
    attempts = queries.show(lineage, history.names.robot["key"])["attempts"]
    assert [attempt["job_ref"] for attempt in attempts] == ["ray:raysubmit_x", None]


def test_cost_and_savings_of_a_run(lineage, history):
    compute = queries.show(lineage, history.names.second)["compute"]
    assert (compute["attempts"], compute["reused"]) == (2, 2)
    assert (compute["spent_seconds"], compute["saved_seconds"]) == (20.0, 20.0)
    assert (compute["spent_gpu_seconds"], compute["saved_gpu_seconds"]) == (10.0, 10.0)
    third = queries.show(lineage, "third")["compute"]
    assert (third["spent_seconds"], third["saved_seconds"]) == (0, 10.0), (
        "an early cutoff saves too"
    )


def test_show_an_artifact_by_prefix_and_alias(lineage, history):
    key = history.names.policies[1]["key"]
    for ref in (key, key[:8], "policy@best"):
        assert queries.show(lineage, ref)["key"] == key
    shown = queries.show(lineage, key)
    assert shown["recipe"] == {"training": {"lr": LR_2, "steps": 100}}
    assert [edge["role"] for edge in shown["inputs"]] == ["robot", "stats"]
    assert [use["kind"] for use in shown["used_by"]] == ["evaluate"]
    assert shown["attempts"][0]["git_dirty"] is True
    assert shown["aliases"][0]["alias"] == "policy@best"
    assert shown["bytes"] == 201


def test_a_lost_attempt_is_closed_and_the_next_of_its_name_is_not(lineage, history):
    attempts = queries.show(lineage, history.names.robot["key"])["attempts"]
    assert [(a["run_id"], a["state"]) for a in attempts] == [
        ("killed-run", "lost"),
        (history.names.first, "committed"),
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
    for end in ("1", "2"):
        artifact = {"key": "abcdef12" + end * 56, "kind": "x"}
        log.append(ArtifactCommitted(artifact=artifact))
    Index(tmp_path / queries.INDEX_NAME, log).advance()
    with queries.connect(tmp_path) as connection:
        with pytest.raises(FoundryError, match="2 keys begin with abcdef12"):
            queries.resolve(connection, "abcdef12")
        assert queries.resolve(connection, "abcdef121") == "abcdef12" + "1" * 56


def test_trace_reaches_every_byte_recipe_and_commit(lineage, history):
    names = history.names
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


def test_trace_of_an_early_cutoff_names_the_artifact_whose_bytes_it_shares(lineage, history):
    (root,) = queries.trace(lineage, history.names.twin["key"])
    roles = {child["role"]: child["key"] for child in root["inputs"]}
    assert roles == {
        "datasets": history.names.robot["key"],
        "same bytes": history.names.stats["key"],
    }


def test_diff_of_runs_and_of_results_finds_the_one_change(lineage, history):
    names = history.names
    change = {"path": "recipe.training.lr", "old": LR_1, "new": LR_2}
    assert queries.diff(lineage, names.first, names.second) == [{"place": "vla"} | change]
    evals = [key["key"][:10] for key in names.evals]
    assert queries.diff(lineage, *evals) == [{"place": "policy"} | change]
    assert queries.diff(lineage, names.first, names.first) == []


def test_diff_of_a_run_and_an_artifact_is_refused(lineage, history):
    key = history.names.evals[0]["key"]
    for pair in ((history.names.first, key), (key, history.names.first)):
        with pytest.raises(FoundryError, match=r"is a run and .* is none"):
            queries.diff(lineage, *pair)


def test_diff_across_an_early_cutoff_shows_only_what_the_result_was_made_from(lineage, history):
    changes = queries.diff(lineage, history.names.stats["key"], history.names.twin["key"])
    assert [(row["place"], row["path"]) for row in changes] == [("", "recipe"), ("", "recipe.bins")]


@pytest.fixture
def stopped(log, tmp_path):
    """A run whose first stage failed; the others, a variant's too, were never begun."""
    history = History(log)
    first = stage("first", "emit", {"v": 1}, {})
    stages = [first, stage("last", "measure", {"v": 2}, {"text": first})]
    history.start("r", stages)
    history.start("r.variant", stages, parent="r")
    history.attempt("r", first)
    failed = {"state": "failed", "error": "no"}
    history.add(AttemptFinished(run_id="r", key=first["key"], attempt="a1", **failed))
    Index(tmp_path / queries.INDEX_NAME, log).advance()
    with queries.connect(tmp_path) as connection:
        assert [row["action"] for row in queries.show(connection, "r")["stages"]] == ["run"] * 2
    history.finish("r", "failed")
    Index(tmp_path / queries.INDEX_NAME, log).advance()
    with queries.connect(tmp_path) as connection:
        yield connection, stages


@pytest.mark.parametrize(
    ("status", "state", "action"),
    [
        ("cancelled", "interrupted", "cancelled"),
        ("cancelled", "failed", "failed"),
        ("failed", "interrupted", "failed"),  # its machine was taken, not the run
    ],
)
def test_what_somebody_stopped_did_not_fail(log, tmp_path, status, state, action):
    history = History(log)
    first = stage("first", "emit", {"v": 1}, {})
    history.start("r", [first])
    history.attempt("r", first)
    history.add(AttemptFinished(run_id="r", key=first["key"], attempt="a1", state=state))
    history.finish("r", status)
    Index(tmp_path / queries.INDEX_NAME, log).advance()
    with queries.connect(tmp_path) as connection:
        (found,) = queries.show(connection, "r")["stages"]
        (counts,) = queries.sql(connection, "select failed, cancelled from run_summary")
    assert found["action"] == action
    assert counts == {"failed": int(action == "failed"), "cancelled": int(action == "cancelled")}


@pytest.mark.parametrize("run", ["r", "r.variant"])
def test_a_failed_run_ran_only_what_it_began(stopped, run):
    connection, stages = stopped
    found = ["failed", "blocked"]
    assert [row["action"] for row in queries.show(connection, run)["stages"]] == found
    assert [node["action"] for node in queries.graph_of(connection, run)[0]] == found
    for built, action in zip(stages, found, strict=True):
        answers = queries.why(connection, built["key"])["runs"]
        assert {answer["action"] for answer in answers} == {action}
    query = f"select ran, reused, failed, blocked from run_summary where run_id = '{run}'"
    assert queries.sql(connection, query) == [{"ran": 0, "reused": 0, "failed": 1, "blocked": 1}]


def test_what_was_planned_but_never_built_is_called_so(stopped):
    connection, stages = stopped
    first, last = (built["key"] for built in stages)
    for ask in (queries.trace, queries.graph_of):
        with pytest.raises(FoundryError, match="planned by r, but never built"):
            ask(connection, last)
    with pytest.raises(FoundryError, match="planned by r, but never built"):
        queries.diff(connection, first, last)
    (root,) = queries.trace(connection, "r")
    assert (root["kind"], root["present"]) == ("measure", None)


def test_sums_do_not_depend_on_the_order_of_their_terms(log, tmp_path):
    history = History(log)
    stages = [stage(f"s{i}", "x", {"v": i}, {}) for i in range(3)]
    history.start("r", stages)
    for built, seconds in zip(stages, (0.1, 0.2, 0.3), strict=True):
        history.attempt("r", built)
        done = {"run_id": "r", "key": built["key"], "attempt": "a1"}
        history.add(AttemptFinished(**done, state="failed", seconds=seconds))
    Index(tmp_path / queries.INDEX_NAME, log).advance()
    with queries.connect(tmp_path) as connection:
        assert queries.show(connection, "r")["compute"]["spent_seconds"] == 0.6


def test_why_gives_reasons_and_the_difference_to_what_came_before(lineage, history):
    names = history.names
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


def test_downstream_ends_at_the_evaluations(lineage, history):
    names = history.names
    query = f"select key from downstream('{names.robot['key'][:9]}') where kind = 'evaluate'"
    found = {row["key"] for row in queries.sql(lineage, query)}
    assert found == {evaluation["key"] for evaluation in names.evals}


def test_sql_returns_plain_rows(lineage, history):
    query = "select run_id, started_at, overrides from pipeline_run order by 1 limit 1"
    assert queries.sql(lineage, query) == [
        {
            "run_id": history.names.first,
            "started_at": "2026-05-01T10:00:02.000000Z",
            "overrides": [],
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
        "explain analyze copy (select 1) to '/tmp/metric.csv'",
        "select 1; copy (select 1) to '/tmp/metric.csv'",
        "set enable_external_access = true",
        "create table lineage.main.mine (a int)",
    ],
)
def test_sql_errors_are_for_the_user_and_nothing_can_be_written(lineage, query):
    with pytest.raises(FoundryError) as raised:
        queries.sql(lineage, query)
    assert raised.value.hint and "\n" not in raised.value.message


@pytest.mark.parametrize(
    "query",
    [
        "from metric",
        "with few as (from metric limit 1) select count(*) from few",
        "explain select 1",
        "EXPLAIN (format json) select 1",
        "describe metric",
        "show all tables",
        "summarize metric",
        "pivot metric on name in ('loss') using avg(value)",
        "pivot metric on name using avg(value)",
    ],
)
def test_sql_answers_every_kind_of_query(lineage, query):
    assert queries.sql(lineage, query)


def test_sql_keeps_columns_of_equal_name(lineage):
    assert queries.sql(lineage, "select 1 as a, 2 as a, 3 as b, 4 as a") == [
        {"a": 1, "a_1": 2, "b": 3, "a_2": 4}
    ]


def test_a_plain_duckdb_connection_has_views_and_macros_too(history):
    with duckdb.connect(history.home / queries.INDEX_NAME, read_only=True) as connection:
        query = f"select count(*) from upstream('{history.names.evals[0]['key']}')"
        assert connection.execute(query).fetchone() == (4,)


def test_no_index_yet(tmp_path):
    with pytest.raises(FoundryError, match="no lineage index"):
        queries.connect(tmp_path)
    (tmp_path / queries.INDEX_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(FoundryError, match="cannot be opened"):
        queries.connect(tmp_path)


def test_long_chains_and_wide_histories_end(log, tmp_path):
    def key(number):
        return digest("chain", number)

    for number in range(120):
        edges = [{"slot": "from", "label": "x", "key": key(number - 1)}] if number else []
        edges += [{"slot": "skip", "label": "x", "key": key(number - 2)}] if number > 1 else []
        artifact = {"key": key(number), "kind": "link", "inputs": edges}
        log.append(ArtifactCommitted(artifact=artifact))
    Index(tmp_path / queries.INDEX_NAME, log).advance()
    with queries.connect(tmp_path) as connection:
        found = queries.sql(connection, f"select * from upstream('{key(119)}')")
        depth = {row["key"]: row["depth"] for row in found}
        assert len(depth) == 120
        assert (depth[key(119)], depth[key(118)], depth[key(117)]) == (0, 1, 1)
        assert depth[key(39)] == 40 and depth[key(38)] is None
