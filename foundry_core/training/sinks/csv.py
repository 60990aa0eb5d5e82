"""Rows of a CSV file: for spreadsheets and plots."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from foundry_core.files import write_atomic
from foundry_core.training.sinks.base import MetricSink, RunInfo

_STEP = "step"


class CsvSink(MetricSink):
    """One file per training, `step` and a column per metric. A resumed training cuts it at the
    step it resumes after, so that no step is there twice; a new one replaces the file."""

    kind: Literal["csv"] = "csv"
    path: str = Field(description="the file; {stage} and {key} stand for the training's own")

    def open(self, run: RunInfo) -> "CsvWriter":
        path = self.path.replace("{stage}", run.stage).replace("{key}", run.key)
        return CsvWriter(Path(path).expanduser(), run.first_step)


class CsvWriter:
    """Appends rows; a metric that was not there before makes a new column, empty above."""

    def __init__(self, path: Path, first_step: int) -> None:
        self._path = path
        self._columns = [_STEP]
        rows = list(_rows_until(path, first_step)) if first_step and path.is_file() else []
        for row in rows:
            self._add_columns(row)
        self._write_whole(rows)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        row = {_STEP: step, **values}
        if self._add_columns(row):
            self._write_whole(_rows_until(self._path, step))
        with self._path.open("a", encoding="utf-8", newline="") as stream:
            self._writer(stream).writerow(row)

    def close(self) -> None:
        """Nothing is held open between rows."""

    def _add_columns(self, row: Mapping[str, object]) -> bool:
        new = sorted(row.keys() - set(self._columns))
        self._columns += new
        return bool(new)

    def _write_whole(self, rows: Iterable[Mapping[str, object]]) -> None:
        text = io.StringIO(newline="")
        writer = self._writer(text)
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self._path, text.getvalue(), durable=False)

    def _writer(self, stream: io.TextIOBase) -> "csv.DictWriter[str]":
        return csv.DictWriter(stream, self._columns, restval="", lineterminator="\n")


def _rows_until(path: Path, step: int) -> Iterator[dict[str, str]]:
    """The rows up to a step; a torn line, which a kill may leave at the end, stops them too."""
    before = -1
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if None in row.values() or not before < int(row[_STEP]) <= step:
                return
            before = int(row[_STEP])
            yield row


SINK = CsvSink
