"""Gathers what a report shows of a run: from the lineage index and the artifacts' files."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.reports.curves import recorded_curves
from flows.reports.episodes_page import PAGE, has_videos, write_episodes_page
from flows.reports.held_out import held_out_section
from flows.reports.looking import looking_section, quality_section
from flows.reports.notes import notes_section
from flows.reports.verdict import VERDICTS, comparison_in
from foundry_core.config.overrides import override_text
from foundry_core.errors import FoundryError
from foundry_core.evaluation.closed_loop import scenarios_of
from foundry_core.evaluation.comparison.report import (
    Curves,
    Filmstrip,
    ReportData,
    write_report,
)
from foundry_core.files import json_line
from foundry_core.home import home_dir, store_uri
from foundry_core.lineage import answers, graph, queries
from foundry_core.lineage.records import THROUGHPUT, metric_lines
from foundry_core.pipeline.reasons import Reason, sentences
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact
from foundry_core.store.open import open_store

_HAPPENED = {"run": "built", "reuse": "reused", "blocked": "not begun"}


def write_run_report(run_id: str) -> Path:
    """report.html in the run's folder, and episodes.html where episodes were recorded. FoundryError
    for an unknown run."""
    data = gather(run_id)
    if data.episodes:
        write_episodes_page(run_id)
    return write_report(home_dir() / "runs" / run_id / "report.html", data)


def gather(run_id: str) -> ReportData:
    """What the lineage and the store know of a run. FoundryError for an unknown one."""
    connection = queries.connect()
    run = queries.show(connection, run_id)
    if "stages" not in run:
        raise FoundryError(f"{run_id!r} is not a run", "`foundry lineage runs` lists them")
    store = open_store(store_uri())
    artifacts = {
        s["stage"]: store.read(s["kind"], s["artifact_key"] or s["key"]) if s["kind"] else None
        for s in run["stages"]
    }
    present = {name: artifact for name, artifact in artifacts.items() if artifact}
    nodes, edges = queries.graph_of(connection, run_id)
    compared = next((a for a in present.values() if a.kind in VERDICTS), None)
    labels = {i.key: i.label for i in compared.inputs} if compared else {}
    return ReportData(
        title=f"{run['pipeline']}: what was built, and how well it works",
        run_id=run_id,
        comparison=comparison_in(store, compared) if compared else None,
        stages=[_stage_row(stage, artifacts[stage["stage"]]) for stage in run["stages"]],
        losses=_losses(store, present),
        throughput=_throughput(store, present),
        filmstrips=_filmstrips(store, present, labels),
        episodes=PAGE if has_videos(_evaluations(present)) else "",
        lineage_svg=graph.svg(nodes, edges),
        provenance=_provenance(present),
        commands=_commands(run, present),
        sections=[
            *notes_section(store, present),
            *held_out_section(store, present),
            *quality_section(connection, run_id),
            *looking_section(store, present, labels),
        ],
        unequal=_unequal(present, compared),
    )


def _evaluations(artifacts: dict[str, Artifact]) -> dict[str, Artifact]:
    return {name: one for name, one in artifacts.items() if one.kind == "evaluate"}


def _stage_row(stage: answers.StageRow, artifact: Artifact | None) -> list[str]:
    """Of the report's STAGE_COLUMNS."""
    found = stage["reasons"] if isinstance(stage["reasons"], list) else []
    action, reasons = stage["action"], [Reason.told(one) for one in found]
    if action == "run":  # the plan's reason is past: what was never built is there now
        reasons = [one for one in reasons if one.category != "MISSING"]
    why = "; ".join(sentences(reasons)) or ("for the first time" if action == "run" else "")
    seconds = f"{artifact.seconds:.1f}" if artifact else ""
    happened = _HAPPENED.get(action, action)
    return [stage["stage"], stage["kind"] or "", stage["key"][:12], happened, why, seconds]


def _losses(store: Store, artifacts: dict[str, Artifact]) -> dict[str, Curves]:
    found: dict[str, Curves] = {}
    for name, artifact in artifacts.items():
        if artifact.kind.startswith("train_"):
            found |= recorded_curves(store, artifact, name)
    return found


def _throughput(store: Store, artifacts: dict[str, Artifact]) -> list[list[str]]:
    """Of the report's THROUGHPUT_COLUMNS, for trainings that have such a record."""
    rows = []
    for name, artifact in artifacts.items():
        if artifact.kind.startswith("train_"):
            path = store.file_path(artifact, THROUGHPUT)
            lines = metric_lines(path.parents[1].joinpath, THROUGHPUT) if path else []
            if lines:
                rows.append([name, *throughput_cells(lines)])
    return rows


def throughput_cells(lines: list[dict[str, Any]]) -> list[str]:
    """Means over the rows of throughput.jsonl, each weighing its seconds; the highest memory."""
    whole = sum(line.get("seconds", 0.0) for line in lines) or 1.0

    def mean(name: str, scale: float = 1.0) -> str:
        if not any(name in line for line in lines):
            return ""
        total = sum(line.get(name, 0.0) * line.get("seconds", 0.0) for line in lines)
        return f"{scale * total / whole:,.1f}"

    memory = max((line.get("memory_allocated_gib", 0.0) for line in lines), default=0.0)
    return [
        mean("samples_per_second"),
        mean("tokens_per_second"),
        mean("mfu", 100),
        mean("data_wait_share", 100),
        f"{memory:.1f}" if memory else "",
    ]


def _filmstrips(
    store: Store, artifacts: dict[str, Artifact], labels: Mapping[str, str]
) -> list[Filmstrip]:
    """For every evaluation. labels: of those that were compared, by key."""
    found = []
    for artifact in artifacts.values():
        if artifact.kind != "evaluate":
            continue
        folder = store.files_path(artifact)
        label = labels.get(artifact.key, artifact.key[:12])
        for first in first_episodes(folder):
            scenario, _, outcome = first.stem.partition("_")
            caption = f"{first.parent.name}, scenario {int(scenario)}: {outcome}"
            found.append(Filmstrip(label=label, caption=caption, png=first.read_bytes()))
    return sorted(found, key=lambda one: (one.caption.partition(":")[0], one.label))


def first_episodes(folder: Path) -> list[Path]:
    """The first recorded episode of every task of an evaluation."""
    firsts = {path.parent: path for path in sorted(folder.glob("frames/*/*.png"), reverse=True)}
    return sorted(firsts.values())


def _unequal(artifacts: dict[str, Artifact], compared: Artifact | None) -> list[str]:
    """Settings that decide which scenarios are met, where compared evaluations differ in them. The
    parts of a race do, and its verdict has checked that they are the same for all."""
    if compared and compared.recipe.get("race"):
        return []
    keys = {i.key for i in compared.inputs} if compared else set()
    # An imported evaluation's recipe says nothing of what it was asked.
    asked = [
        found for a in artifacts.values() if a.key in keys and (found := scenarios_of(a.recipe))
    ]
    names = dict.fromkeys(name for one in asked for name in one)
    return [name for name in names if len({json_line(one.get(name)) for one in asked}) > 1]


def _provenance(artifacts: dict[str, Artifact]) -> dict[str, str]:
    latest = max(artifacts.values(), key=lambda a: a.created, default=None)
    if latest is None:
        return {}
    facts = latest.provenance
    git, hardware = facts.get("git") or {}, facts.get("hardware") or {}
    shown = {
        "code": f"{git.get('commit') or 'no git'}{' + changes' if git.get('dirty') else ''}",
        "host": str(facts.get("host", "")),
        "hardware": ", ".join(f"{k} {v}" for k, v in hardware.items() if v),
    }
    packages = facts.get("packages") or {}
    wanted = ("torch", "ray", "prefect", "mujoco", "metaworld", "transformers", "duckdb")
    shown["packages"] = ", ".join(f"{n} {packages[n]}" for n in wanted if n in packages)
    return {name: value for name, value in shown.items() if value}


def _commands(run: Mapping[str, Any], artifacts: dict[str, Artifact]) -> list[str]:
    """The plan of what was asked for, by name or by file as it was given, and the lineage of an
    evaluation."""
    words = ["foundry", "plan", run.get("asked") or run["pipeline"]]
    for path, value in run["overrides"] or ():
        words += ["-o", override_text(path, value)]
    commands = [shlex.join(words)]
    for artifact in artifacts.values():
        if artifact.kind == "evaluate":
            key = artifact.key[:12]
            commands.append(f"foundry lineage trace {key}")
            commands.append(f"foundry lineage sql \"FROM upstream('{key}')\"")
            break
    return commands
