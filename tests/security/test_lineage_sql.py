"""`foundry lineage sql` answers queries, and nothing that is typed there does anything else."""

import os
import resource
import subprocess
import sys

import pytest

from foundry_core.errors import FoundryError
from foundry_core.lineage import statements
from foundry_core.lineage.event_types import AliasSet, RunStarted
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index
from foundry_core.lineage.queries import INDEX_NAME, connect, runs, show, sql


@pytest.fixture
def home(tmp_path):
    log = EventLog(tmp_path / "store" / "events")
    log.append(RunStarted(run_id="r1", pipeline="p", stages=[]))
    log.append(AliasSet(alias="a@b", key="0" * 64))
    Index(tmp_path / INDEX_NAME, log).advance()
    return tmp_path


@pytest.fixture
def connection(home):
    with connect(home) as opened:
        yield opened


def refused(connection, query):
    with pytest.raises(FoundryError) as raised:
        sql(connection, query)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.mark.parametrize(
    "query",
    [
        "select run_id from pipeline_run",
        "from pipeline_run select run_id",
        "with a as (from pipeline_run) select run_id from a;",
        "-- a comment\nselect run_id /* ; drop table x */ from pipeline_run -- ; pragma x",
        "select run_id from pipeline_run where run_id <> '; drop table alias; --'",
        "(select run_id from pipeline_run)",
        "-- é\nfrom (pivot pipeline_run on pipeline) select run_id",
    ],
)
def test_queries_are_answered(connection, query):
    assert sql(connection, query) == [{"run_id": "r1"}]


@pytest.mark.parametrize("query", ["show all tables", "describe pipeline_run", "explain select 1"])
def test_the_tables_can_be_looked_at(connection, query):
    assert sql(connection, query)


@pytest.mark.parametrize(
    "query",
    [
        "copy (select 1) to '{folder}/x.csv'",
        "copy pipeline_run to '{folder}/x.csv'",
        "attach '{folder}/x.db'",
        "attach ':memory:' as more",
        "detach lineage",
        "install httpfs",
        "load httpfs",
        "pragma database_list",
        "pragma enable_profiling",
        "call pragma_version()",
        "set enable_external_access = true",
        "reset lock_configuration",
        "export database '{folder}/x'",
        "create table memory.main.x (a int)",
        "create temp table x as select 1",
        "create macro f() as 1",
        "create table memory.main.x as pivot pipeline_run on pipeline",
        "-- é select\ncopy (pivot pipeline_run on pipeline) to '{folder}/x'",
        "insert into alias values (1)",
        "update alias set alias = 'x'",
        "delete from alias",
        "drop view run_summary",
        "merge into alias using alias b on true when matched then delete",
        "prepare x as select 1",
        "execute x",
        "use memory",
        "begin",
        "checkpoint",
        "vacuum",
        "select 1; select 2",
        "select 1; drop table alias",
        "select 1;;; copy (select 1) to '{folder}/x'",
        "/* select */ drop table alias",
        "select 1 -- \n; drop table alias",
        "",
        ";",
        "-- select 1",
    ],
)
def test_what_is_no_single_query_is_refused_by_the_parser(connection, tmp_path, query):
    before = sorted(tmp_path.rglob("*"))
    message = refused(connection, query.format(folder=tmp_path))
    assert "one query is expected" in message
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "query",
    [
        "from read_csv('/etc/passwd')",
        "from '/etc/passwd'",
        'from "/etc/passwd"',
        "from read_text('/etc/passwd')",
        "from read_blob('/etc/passwd')",
        "from read_json('/etc/passwd')",
        "from read_parquet('/etc/passwd')",
        "from parquet_metadata('/etc/passwd')",
        "from sniff_csv('/etc/passwd')",
        "from glob('/etc/*')",
        "from query('from read_text(''/etc/passwd'')')",
        "from query_table('/etc/passwd')",
        "from read_csv('https://example.org/x.csv')",
        "from 's3://bucket/x.parquet'",
        "from duckdb_extensions()",
        "with a as (insert into alias values (1)) select 1",
        "with a as (delete from alias returning *) from a",
        "explain analyze delete from alias",
        "explain analyze copy (select 1) to '{folder}/x'",
        "select * from read_csv(chr(47) || 'etc/passwd')",
        "select getenv('HOME')",
        "from connection",
        "from _SETTINGS",
        "select " + "(" * 2000 + "1" + ")" * 2000,
        "select '" + "x" * 200_000 + "'",
        "select \udcff",
        "selec 1",
    ],
)
def test_a_query_reaches_nothing_but_the_index(connection, tmp_path, query):
    before = sorted(tmp_path.rglob("*"))
    refused(connection, query.format(folder=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    assert sql(connection, "select alias from alias") == [{"alias": "a@b"}]


def test_the_other_questions_work_after_it(connection):
    sql(connection, "select 1")
    assert [row["run_id"] for row in runs(connection)] == ["r1"]
    assert show(connection, "r1")["run_id"] == "r1"


@pytest.mark.parametrize(
    "query",
    [
        "select count(*) from range(1000000000000) a, range(1000) b",
        "with recursive r as (select 1 a union all select a + 1 from r) select max(a) from r",
    ],
)
def test_a_query_without_end_is_interrupted(connection, monkeypatch, query):
    monkeypatch.setattr(statements, "SECONDS", 0.2)
    assert "the query took more than 0.2 s" in refused(connection, query)
    assert sql(connection, "select 1 as one") == [{"one": 1}]


def test_more_rows_than_anybody_reads_are_refused(connection):
    assert "more than 200000 rows" in refused(connection, "from range(10000000000)")


def test_memory_is_bounded(connection, monkeypatch):
    assert statements._SETTINGS["memory_limit"] == "'2GB'"
    monkeypatch.setitem(statements._SETTINGS, "memory_limit", "'50MB'")
    message = refused(connection, "select list(a || 'x') from range(1000000000) t(a)")
    assert "Out of Memory" in message


def test_what_one_function_makes_of_one_value_is_bounded(connection, monkeypatch):
    """DuckDB's own bound counts it too late: the system refuses it."""
    monkeypatch.setattr(statements, "_MEMORY", 2**29)
    before = resource.getrlimit(resource.RLIMIT_AS)
    assert "Out of Memory" in refused(connection, f"select repeat('{'x' * 50_000}', 20000) as one")
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert sql(connection, "select 1 as one") == [{"one": 1}]


def test_an_answer_that_python_cannot_hold_is_one_line(connection, monkeypatch):
    def rows(*_, **__):
        return [bytearray(2**33)]

    monkeypatch.setattr(statements, "rows", rows)
    assert "the answer needs more than 3 GiB" in refused(connection, "select 1")


ENDLESS = """
import sys
from flows.cli import main
from flows.cli.commands import lineage
from foundry_core.lineage import statements
statements.SECONDS, lineage._PATIENCE_SECONDS = 0.3, 0.3
sys.exit(main(["lineage", "sql", "select length(repeat('x', 2000000000)) as one"]))
"""


def test_a_function_that_looks_at_no_interrupt_ends_the_command(home):
    own = {"FOUNDRY_HOME": str(home)}
    command = [sys.executable, "-c", ENDLESS]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "foundry: the query cannot end, killed after 0.6 s\n"
