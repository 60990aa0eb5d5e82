"""A run's page in Prefect's UI: the plan, losses, rollouts, the verdict, the report."""

import base64
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.ablation.search import Rung
from flows.ablation.search_table import rungs_markdown
from flows.ablation.verdict_table import by_variant, changes_text, p_cell, seeds_text
from flows.console import markdown_table
from flows.prefect.addresses import report_page, run_page, served
from flows.prefect.api import configured, server_url
from flows.prefect.page import ProgressReport, artifact_key, show_link, show_markdown
from flows.runs.engine import PipelineRun
from foundry_core.evaluation.design import Standing
from foundry_core.lineage.records import metric_lines
from foundry_core.store.manifest import Artifact

_MOMENT_SECONDS = 5.0
_LARGEST_IMAGE = 512 * 1024
_LONGEST_NAME = 30
# What decisions begin with, where the rest of them would be too wide.
_SHORT = ("the base", "better", "worse", "not separated", "no verdict")


def show_plan(markdown: str) -> None:
    """What will run and why, before anything does."""
    _show("plan", "Plan", markdown)


def progress_of(stage: str) -> Callable[[Mapping[str, Any]], None] | None:
    """Shows a bar for a stage that takes longer than a moment. None where nobody would see it."""
    if not configured():
        return None
    report, begins = ProgressReport(stage), time.monotonic() + _MOMENT_SECONDS

    def publish(state: Mapping[str, Any]) -> None:
        if time.monotonic() > begins:
            report.publish(state)

    return publish


class LogLines(io.StringIO):
    """A text file whose lines become log messages: what a terminal would show, on a run's page."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def write(self, text: str) -> int:
        """A line is a message; empty ones are none."""
        for line in text.splitlines():
            if line.strip():
                self._say(line)
        return len(text)


def show_stage(run: PipelineRun, name: str, called: str) -> None:
    """What a finished stage has to show, by its kind. Called in the stage's own task. called: its
    name on the page."""
    if not configured():
        return
    artifact = run.artifact(name)
    folder = run.prepared.store.files_path(artifact)
    if artifact.kind in ("evaluate", "evaluate_control"):
        _show_rollouts(called, artifact, folder)
    elif artifact.kind in ("compare", "verdict"):
        _show_comparison(called, folder)
    else:
        _show_losses(called, folder)


def show_effects(
    effects: Sequence[Mapping[str, Any]], seeds: Mapping[str, Any] | None, more: str = ""
) -> None:
    """The verdict of an ablation, a row per variant. more: what else is to be known of it."""
    text = verdict_markdown(effects)
    text += f"\n{seeds_text(seeds)}\n" if seeds else "\nNo verdict: see the runs that failed.\n"
    _show("verdict", "Verdict", f"{text}\n{more}\n" if more else text)


def show_rungs(rungs: Sequence[Rung], of: int, reports: Mapping[str, Path]) -> None:
    """What a search has decided so far. reports: of the rungs' ablations."""
    links = {name: "[{1}]({0})".format(*_report_link(path)) for name, path in reports.items()}
    _show("rungs", "Rungs", rungs_markdown(rungs, of, links))


def verdict_markdown(effects: Sequence[Mapping[str, Any]]) -> str:
    """A table that Prefect's page shows whole, which breaks no line of a cell and cuts what is
    wider than 800 pixels; below it what each variant changes, and decisions in full."""
    rows = [["variant", "success", "95 %", "p", "decision", "letters"]]
    notes = []
    for name, changes in by_variant(effects).items():
        one = changes[0]
        known = one["success"] is not None
        rate = f"{100 * one['success']:.1f} % of {one['n']}" if known else "-"
        interval = f"{100 * one['low']:.0f}–{100 * one['high']:.0f}" if known else "-"
        decision = one["decision"]
        short = next((word for word in _SHORT if decision.startswith(word)), decision)
        rows.append([_cut(name), rate, interval, p_cell(one), short, one["letters"] or ""])
        said = "; ".join(filter(None, [changes_text(changes), decision]))
        notes.append(f"- **{name}**: {said.partition(chr(10))[0]}\n")
    return f"{markdown_table(rows)}\n{''.join(notes)}"


def _cut(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def show_looks(standing: Standing, rounds: int) -> None:
    """What a race has decided so far, and who plays on."""
    rows = [["look", "after", "decided"]]
    rows += [[str(one.look), f"{one.rounds} of {rounds}", one.text] for one in standing.decided]
    on = ", ".join(standing.running)
    text = f"{markdown_table(rows)}\n" if standing.decided else "Nothing is decided yet.\n\n"
    text += (
        f"Look {standing.look} comes next: {on} play on.\n" if standing.look else "It is over.\n"
    )
    _show("looks", "Looks", text)


def show_run(run_id: str) -> None:
    """A link to the run's live page, where its server has one."""
    if _has_pages():
        title = "Stages, curves, rollouts, verdict and lineage while the run goes on"
        show_link("run", run_page(run_id), f"page of {run_id}", title)


def _has_pages() -> bool:
    """Whether the server is `foundry serve` of this home."""
    return configured() and f"{served()}/api" == server_url()


def show_report(path: Path) -> None:
    """A link to a run's report, which `foundry serve` of this home shows; another server knows the
    file's path only."""
    link, text = _report_link(path)
    show_link("report", link, text, f"Report: {path}")


def _report_link(path: Path) -> tuple[str, str]:
    """An address and a text for it."""
    if _has_pages():
        return report_page(path.parent.name), f"report of {path.parent.name}"
    return path.absolute().as_uri(), str(path)


def on_white(svg: str) -> bytes:
    """A picture alone cannot follow the page's colours: dark letters need light behind them."""
    return svg.replace(
        "</title>", '</title><rect width="100%" height="100%" fill="#fff"/>', 1
    ).encode()


def _show_losses(name: str, folder: Path) -> None:
    from flows.reports.curves import loss_series
    from foundry_core.evaluation.comparison.plots import curves

    series = loss_series(metric_lines(folder.joinpath))
    if series:
        picture = on_white(curves(name, series))
        _show(f"loss-{name}", f"Losses of {name}", _image("svg+xml", picture, name))


def _show_rollouts(name: str, artifact: Artifact, folder: Path) -> None:
    """The first recorded episode of every task, as in the report."""
    from flows.reports.run_report import first_episodes

    values = artifact.metrics
    text = f"success over all tasks: {values.get('successes', '?')} of {values.get('n', '?')}\n"
    for first in first_episodes(folder):
        task, outcome = first.parent.name, first.stem.partition("_")[2]
        text += f"\n{task}: {outcome}\n\n{_image('png', first.read_bytes(), task)}\n"
    _show(f"rollouts-{name}", f"Rollouts of {name}", text)


def _show_comparison(name: str, folder: Path) -> None:
    from foundry_core.evaluation.comparison.result import read_comparison
    from foundry_core.evaluation.comparison.sentences import verdict
    from foundry_core.evaluation.comparison.tables import markdown

    found = read_comparison(folder / "comparison.json")
    picture = _image("svg+xml", on_white((folder / "success.svg").read_text()), "success")
    text = f"{markdown(found)}\n{verdict(found)}\n\n{picture}\n"
    _show(f"results-{name}", f"Results: {name}", text)


def _image(kind: str, data: bytes, alt: str) -> str:
    """Markdown with the picture as data: the server keeps it, and a browser elsewhere needs no path
    to this disk. (Prefect's own image artifacts print the address below the picture.)"""
    if len(data) > _LARGEST_IMAGE:
        return f"(a picture of {len(data):,} bytes: see the report)"
    return f"![{alt}](data:image/{kind};base64,{base64.b64encode(data).decode()})"


def _show(key: str, title: str, text: str) -> None:
    show_markdown(artifact_key(key), title, text)
