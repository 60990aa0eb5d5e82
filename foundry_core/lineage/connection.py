"""Reading the index: connections to it, and their rows as plain data that JSON can hold."""

import json
import math
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import duckdb

from foundry_core.errors import FoundryError

Row = TypeVar("Row")


def attach(path: str | Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the index as it is now, with its views and macros.

    Raises duckdb.Error for what is no database. It is attached to a private in-memory database:
    DuckDB would otherwise hand out the instance that this process opened earlier under the same
    name, which is the file from before the last advance.
    """
    path = Path(path).absolute()
    connection = duckdb.connect()
    try:
        _attach_file(connection, path)
        connection.execute("use lineage")
    except BaseException:
        connection.close()
        raise
    return connection


def _attach_file(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """As `lineage`. Someone, in this process or another, may have opened the file for writing,
    which locks it: then a copy."""
    try:
        connection.execute(f"attach {quote(path)} as lineage (read_only)")
    except duckdb.Error as error:
        if "lock" not in str(error) and "already attached" not in str(error):
            raise
        folder = Path(tempfile.mkdtemp(prefix="lineage-"))
        weakref.finalize(connection, shutil.rmtree, folder, ignore_errors=True)
        copy = shutil.copyfile(path, folder / path.name)
        connection.execute(f"attach {quote(copy)} as lineage (read_only)")


def rows(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Sequence[Any] = (),
    *,
    of: type[Row],
    hint: str = "",
    most: int = sys.maxsize - 1,
) -> list[Row]:
    """What a query finds, one mapping per row, of a type that names its columns (a TypedDict).

    JSON columns are decoded; times become ISO strings in UTC; columns of equal name become a, a_1.
    What DuckDB refuses raises FoundryError with the hint, and so do more rows than `most`.
    """
    try:
        cursor = connection.execute(query, list(parameters))
        fetched = cursor.fetchmany(most + 1) if cursor.description else []
    except duckdb.Error as error:
        raise FoundryError(f"lineage: {first_line(error)}", hint) from None
    if len(fetched) > most:
        raise FoundryError(f"lineage: more than {most} rows", "add `limit`, or ask for less")
    columns = cursor.description or []
    names = _distinct(column[0] for column in columns)
    decode = [json_value if str(column[1]) == "JSON" else plain for column in columns]
    found = [
        {name: take(value) for name, take, value in zip(names, decode, row, strict=True)}
        for row in fetched
    ]
    return cast("list[Row]", found)


def _distinct(names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        spellings = chain([name], (f"{name}_{number}" for number in count(1)))
        found.append(next(spelling for spelling in spellings if spelling not in found))
    return found


def json_value(text: str | None) -> Any:
    """What a JSON column holds."""
    return None if text is None else json.loads(text)


def plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds") + ("" if value.tzinfo else "Z")
    if isinstance(value, UUID | date):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def first_line(error: Exception) -> str:
    """What DuckDB says of an error, less the query that it repeats."""
    return str(error).partition("\n")[0].removeprefix("Invalid Input Error: ")


def quote(value: str | Path) -> str:
    """A SQL string literal."""
    text = str(value).replace("'", "''")
    return f"'{text}'"
