"""Lineage for other tools: tables as CSV or Parquet, runs as OpenLineage events."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import duckdb

from foundry_core import __version__
from foundry_core.errors import FoundryError
from foundry_core.files import json_line
from foundry_core.lineage.connection import quote, rows

TABLES = (
    *("pipeline_run", "stage_spec", "stage_input", "run_stage", "run_artifact", "attempt"),
    *("artifact", "artifact_version", "artifact_input", "file", "metric", "episode", "package"),
    *("alias", "ablation", "ablation_variant", "ablation_effects"),
    *("score", "eval_scores", "run_scores", "version_scores"),
    *("measure", "run_measures", "stage_quality", "ablation_quality"),
    *("compute_spent_saved", "run_summary"),
)
Json = dict[str, Any]
_PRODUCER = f"https://pypi.org/project/foundry-robotics/{__version__}"
_SPEC = "https://openlineage.io/spec"
_ENDINGS = {"committed": "COMPLETE", "failed": "FAIL"}


def export_tables(
    connection: duckdb.DuckDBPyConnection, folder: Path, form: Literal["csv", "parquet"]
) -> list[Path]:
    """One file per table and view, rows in a stable order. Overwrites what it wrote before."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for table in TABLES:
            path = folder / f"{table}.{form}"
            connection.execute(
                f"copy (select * from {table} order by all) to {quote(path)} (format {form})"
            )
            written.append(path)
    except (OSError, duckdb.IOException) as error:
        raise _unwritable(folder, error) from None
    return written


def _unwritable(folder: Path, error: Exception) -> FoundryError:
    return FoundryError(
        f"lineage export: {folder} cannot be written ({error})", "give another folder"
    )


def openlineage(
    connection: duckdb.DuckDBPyConnection, *, namespace: str = "foundry", run_id: str | None = None
) -> Iterator[Json]:
    """OpenLineage 2-0-2 run events of every attempt, START and, once it ended, COMPLETE, FAIL or
    ABORT. Run UUIDs derive from our ids, so exporting twice sends the same events.

    Each attempt is a run of the job `<pipeline>.<stage>` under its pipeline run; artifacts are
    datasets `<kind>/<key>` whose version is the content digest.
    """
    where = "where a.run_id = $1" if run_id else ""
    attempts = rows(
        connection,
        f"""select a.*, coalesce(r.pipeline, 'unknown') as pipeline from attempt a
        left join pipeline_run r using (run_id) {where}
        order by a.started_at, a.key, a.attempt, a.run_id""",
        [run_id] if run_id else [],
        of=Json,
    )
    for attempt in attempts:
        inputs = _inputs(connection, attempt["key"], namespace)
        yield _event("START", attempt["started_at"], attempt, namespace, inputs=inputs, outputs=[])
        if attempt["state"] != "running":
            ending = _ENDINGS.get(attempt["state"], "ABORT")
            outputs = [_output(connection, attempt, namespace)] if ending == "COMPLETE" else []
            moment = attempt["finished_at"] or attempt["started_at"]
            yield _event(ending, moment, attempt, namespace, inputs=inputs, outputs=outputs)


def write_openlineage(events: Iterator[Json], path: Path) -> int:
    """One JSON event per line, as OpenLineage's file transport writes; returns how many."""
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as stream:
            for event in events:
                stream.write(json_line(event))
                count += 1
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    return count


def _event(kind: str, moment: str, attempt: Json, namespace: str, **datasets: list[Json]) -> Json:
    parent = {
        "run": {"runId": _uuid(attempt["run_id"])},
        "job": {"namespace": namespace, "name": attempt["pipeline"]},
    }
    facets = {"parent": _facet("1-1-0/ParentRunFacet", parent)}
    if attempt["error"] and kind == "FAIL":
        message = {"message": attempt["error"], "programmingLanguage": "python"}
        facets["errorMessage"] = _facet("1-0-1/ErrorMessageRunFacet", message)
    source = {"type": "git", "url": "", "version": attempt["git_commit"]}
    located = {"sourceCodeLocation": _facet("1-0-1/SourceCodeLocationJobFacet", source)}
    unique = _uuid(attempt["key"], attempt["attempt"], attempt["run_id"])
    return {
        "eventType": kind,
        "eventTime": moment,
        "producer": _PRODUCER,
        "schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": unique, "facets": facets},
        "job": {
            "namespace": namespace,
            "name": f"{attempt['pipeline']}.{attempt['stage']}",
            "facets": located if attempt["git_commit"] else {},
        },
        **datasets,
    }


def _inputs(connection: duckdb.DuckDBPyConnection, key: str, namespace: str) -> list[Json]:
    rows = connection.execute(
        """select distinct coalesce(i.kind, a.kind, 'unknown'), i.upstream_key, i.content
        from artifact_input i left join artifact a on a.key = i.upstream_key where i.key = $1
        union
        select coalesce(a.kind, 'unknown'), s.upstream_key, a.content
        from stage_input s left join artifact a on a.key = s.upstream_key
        where s.key = $1 and $1 not in (select key from artifact)
        order by all""",
        [key],
    ).fetchall()
    return [_dataset(kind, upstream, content, namespace) for kind, upstream, content in rows]


def _output(connection: duckdb.DuckDBPyConnection, attempt: Json, namespace: str) -> Json:
    row = connection.execute(
        """select content, bytes, files from artifact_version
        where key = ? and attempt = ? and run_id = ?""",
        [attempt["key"], attempt["attempt"], attempt["run_id"]],
    ).fetchone()
    content, size, files = row or (None, None, None)
    dataset = _dataset(attempt["kind"], attempt["key"], content, namespace)
    if size is not None:
        statistics = _facet(
            "1-0-2/OutputStatisticsOutputDatasetFacet", {"size": int(size), "fileCount": files}
        )
        dataset["outputFacets"] = {"outputStatistics": statistics}
    return dataset


def _dataset(kind: str, key: str, content: str | None, namespace: str) -> Json:
    facets = {}
    if content:
        facets["version"] = _facet("1-0-1/DatasetVersionDatasetFacet", {"datasetVersion": content})
    return {"namespace": namespace, "name": f"{kind}/{key}", "facets": facets}


def _facet(schema: str, content: Json) -> Json:
    name = schema.rpartition("/")[2]
    url = f"{_SPEC}/facets/{schema}.json#/$defs/{name}"
    return {"_producer": _PRODUCER, "_schemaURL": url, **content}


def _uuid(*names: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"foundry:{'/'.join(names)}"))
