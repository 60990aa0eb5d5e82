"""One query that somebody typed, on a connection that can do nothing else.

What a statement is, DuckDB's own parser says; what a query may reach is settled on the connection,
before it runs: no files, no network, no extensions, no Python variables, a bounded memory and time.
"""

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb

from foundry_core.errors import FoundryError
from foundry_core.files import encodable
from foundry_core.lineage.connection import first_line, rows

MOST_ROWS = 200_000
SECONDS = 60.0
_LONGEST = 100_000
_HINT = "tables and views: `show all tables`; see docs/lineage.md"
_LESS = "ask for less; `foundry lineage export` writes whole tables"
# DuckDB counts what its operators hold, and not what one function makes of one value.
_MEMORY = 3 * 2**30
_QUERIES = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_PIVOTS = (b"pivot", b"from", b"select", b"with", b"(")
# In this order: the last two close the door.
_SETTINGS = {
    "python_enable_replacements": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "temp_directory": "''",
    "memory_limit": "'2GB'",
    "threads": str(min(4, os.cpu_count() or 1)),
    "enable_external_access": "false",
    "lock_configuration": "true",
}


def ask(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    """The rows of one query. FoundryError for anything else, and for what takes more than a minute
    or gives more than MOST_ROWS. Nothing can be reached or set on the connection from now on."""
    _close(connection)
    _check(connection, query)
    late = threading.Event()

    def interrupt() -> None:
        late.set()
        connection.interrupt()

    timer = threading.Timer(SECONDS, interrupt)
    timer.start()
    try:
        with _bounded_memory():
            return rows(connection, query, of=dict[str, Any], hint=_HINT, most=MOST_ROWS)
    except MemoryError:
        raise FoundryError(
            f"lineage: the answer needs more than {_MEMORY >> 30} GiB", _LESS
        ) from None
    except FoundryError as error:
        if not late.is_set():
            raise
        raise FoundryError(
            f"lineage: the query took more than {SECONDS:g} s",
            _LESS,
        ) from error
    finally:
        timer.cancel()


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """In the block this process gets at most _MEMORY more than it has: who asks for more is told so
    by the system, and DuckDB and Python end what they do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = _address_space() + _MEMORY
    if soft != resource.RLIM_INFINITY:
        most = min(most, soft)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _address_space() -> int:
    """Bytes that this process has mapped; as good as none where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * resource.getpagesize()


def _close(connection: duckdb.DuckDBPyConnection) -> None:
    (closed,) = connection.execute("select current_setting('lock_configuration')").fetchone() or ()
    if not closed:
        for name, value in _SETTINGS.items():
            connection.execute(f"set {name} = {value}")


def _check(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    if len(query) > _LONGEST or not encodable(query):
        raise FoundryError(
            f"lineage: the query is not UTF-8 of at most {_LONGEST} characters", _HINT
        )
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise FoundryError(f"lineage: {first_line(error)}", _HINT) from None
    if len(statements) != 1 or not _is_query(statements[0].type, query):
        found = ", ".join(one.type.name for one in statements) or "nothing"
        raise FoundryError(
            f"lineage: one query is expected, found {found}",
            "the lineage is for reading: select, from, with, show, describe or explain",
        )


def _is_query(kind: duckdb.StatementType, query: str) -> bool:
    """A pivot is several statements to DuckDB, whatever is made of it: then its first word tells,
    which no comment hides."""
    if kind != duckdb.StatementType.MULTI:
        return kind in _QUERIES
    words = (at for at, kind in duckdb.tokenize(query) if kind != duckdb.token_type.comment)
    return query.encode()[next(words) :].lower().startswith(_PIVOTS)
