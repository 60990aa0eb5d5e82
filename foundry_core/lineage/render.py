"""Lineage for the terminal: trees and tables of rich."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from foundry_core.lineage.answers import Change, FileRow, ScoreRow, TraceNode, WhyAnswer
from foundry_core.narrow import Fitting
from foundry_core.pipeline.reasons import Reason, sentences

# Of the tables in a record: what a person looks for first. The rest is in the JSON.
_CHOSEN = {
    "attempts": (
        *("run_id", "stage", "attempt", "state", "seconds", "gpu_seconds", "peak_memory"),
        *("resumed_from_step", "host", "job_ref", "git_commit", "packages_digest", "error"),
    ),
    "versions": ("run_id", "attempt", "content", "created_at", "latest", "metrics"),
    "stages": ("stage", "kind", "key", "action", "how", "reasons"),
}
# (kind, recipe) → a part of the recipe
Changed = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
_DIGEST = re.compile(r"\b[0-9a-f]{40,64}\b")
_RUN_COLUMNS = ("run_id", "started_at", "status", "seconds", "scores", "overrides", "error")


def trace_tree(
    roots: Sequence[TraceNode], *, whole: bool = False, changed: Changed | None = None
) -> Tree:
    """What `queries.trace` found. whole: with every setting, file and digest in full. changed: of a
    kind and a recipe the settings that say something, those that differ from the defaults."""
    top = Tree("lineage", hide_root=True)
    pending: list[tuple[Tree, TraceNode]] = [(top, root) for root in reversed(roots)]
    while pending:
        parent, node = pending.pop()
        branch = parent.add(_title(node))
        if node.get("repeated"):
            continue
        recipe = node.get("recipe")
        if recipe and changed and not whole:
            recipe = changed(node["kind"] or "", recipe)
        for line in _facts(node, recipe, whole):
            branch.add(line)
        _add_files(branch, node.get("file_list", ()), whole)
        pending += [(branch, child) for child in reversed(node["inputs"])]
    return top


def _title(node: TraceNode) -> str:
    role = f"[cyan]{escape(node['role'])}[/]: " if node["role"] else ""
    title = f"{role}[bold]{escape(node['kind'] or 'unknown')}[/] {node['key'][:12]}"
    if node.get("repeated"):
        return f"{title} [dim](shown above)[/]"
    if node["kind"] and node.get("present") is None:
        return f"{title} [yellow](never built)[/]"
    return title if node.get("present") else f"{title} [yellow](no longer in the store)[/]"


def _facts(node: TraceNode, recipe: Any, whole: bool) -> list[str]:
    lines = [
        f"success {score_text(score)}  {escape(score['task'])}" for score in node.get("scores", ())
    ]
    if node.get("kind") is None:
        return [*lines, "[dim]nothing is known of it[/]"]
    if node.get("present") is None:
        return lines
    commit = (node.get("git_commit") or "no git")[:12]
    dirty = " [yellow]with uncommitted changes[/]" if node.get("git_dirty") else ""
    digest = node.get("diff_digest")
    if dirty and digest:
        dirty += f" {digest[:12]}"
    lines.append(f"code {escape(short_code(node['code']))} at commit {commit}{dirty}")
    built = f"content {(node['content'] or '')[:12]}, seed {node['seed']}, run {node['run_id']}"
    if node.get("seconds") is not None:
        built += f", {node['seconds']:.1f} s"
    lines.append(escape(built))
    if node.get("continued_from"):
        lines.append(
            f"continued {(node['continued_from'] or '')[:12]} from step {node['continued_step']}: "
            "no input, a straight run has this key, too"
        )
    if recipe:
        text = "  ".join(f"{path}={value}" for path, value in leaves(recipe))
        lines.append(f"[dim]{escape(text)}[/]")
    for name, identity in (node.get("sources") or {}).items():
        text = str(identity)
        short = text if whole else _DIGEST.sub(lambda found: found[0][:12], text)
        lines.append(f"source {escape(name)} {escape(short)}")
    return lines


def _add_files(branch: Tree, files: Sequence[FileRow], whole: bool) -> None:
    outputs = [file for file in files if file["role"] == "output"]
    if whole:
        for file in outputs:
            branch.add(f"{escape(file['path'])} [dim]{file['size']:,} B sha256 {file['sha256']}[/]")
    elif outputs:
        count = f"{len(outputs)} file{'s' if len(outputs) > 1 else ''}"
        branch.add(f"[dim]{count}, {sum(file['size'] for file in outputs):,} B[/]")


def record(row: Mapping[str, object]) -> RenderableType:
    """What `queries.show` found: scalars first, then nested values leaf by leaf, then tables."""
    scalars: list[RenderableType] = []
    nested: list[RenderableType] = []
    tables: list[RenderableType] = []
    for name, value in row.items():
        if value in (None, [], {}):
            continue
        if isinstance(value, dict):
            nested.append(f"[bold]{name}")
            lines = (f"  {path}: {_cell(path, leaf)}" for path, leaf in leaves(value))
            nested += map(escape, lines)
        elif isinstance(value, list) and isinstance(value[0], dict):
            tables += [f"[bold]{name}", table_of(value, _filled(value, _CHOSEN.get(name)))]
        else:
            scalars.append(f"[bold]{name}[/]: {escape(_cell(name, value))}")
    return Group(*scalars, *nested, *tables)


def _filled(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> list[str]:
    """The columns in which any row has a value."""
    names = [name for name in columns or rows[0] if name in rows[0]]
    return [name for name in names if any(row[name] not in (None, "", []) for row in rows)]


def runs_table(rows: Sequence[Mapping[str, Any]]) -> Fitting:
    """What `queries.runs` found."""
    shown = [
        {
            **row,
            "started_at": _minute(row["started_at"]),
            "scores": "\n".join(
                f"{name} {score['success_rate']:.3f} (n={score['n']})"
                for name, score in (row["scores"] or {}).items()
                if score["success_rate"] is not None
            ),
            "overrides": "\n".join(f"{p}={v}" for p, v in row["overrides"] or ()),
        }
        for row in rows
    ]
    return table_of(shown, _filled(shown, _RUN_COLUMNS))


def _minute(time: str | None) -> str:
    return (time or "")[:16].replace("T", " ")


def why_tree(answer: WhyAnswer) -> Tree:
    """What `queries.why` found: a branch for every run, with its reasons, and one for what differs
    from the artifact before."""
    runs = answer["runs"]
    kind = (runs[-1]["kind"] if runs else None) or "artifact"
    top = Tree(f"[bold]{escape(kind)}[/] {answer['key'][:12]}")
    if not runs:
        top.add("[dim]no run has it[/]")
    for run in runs:
        how = f" ({run['how']})" if run["how"] else ""
        start = f"{_minute(run['started_at'])} {run['run_id']}"
        branch = top.add(escape(f"{start}, stage {run['stage']}: {run['action']}{how}"))
        for sentence in _sentences(run["reasons"]):
            branch.add(escape(sentence))
    if answer["previous"]:
        branch = top.add(f"against the one before it, {answer['previous'][:12]}")
        _add_changes(branch, answer["changes"])
    return top


def diff_tree(changes: Sequence[Change], old: str, new: str) -> Tree:
    """What `queries.diff` found, by stage or role."""
    top = Tree(f"{escape(old)} → {escape(new)}")
    _add_changes(top, changes)
    return top


def _add_changes(tree: Tree, changes: Sequence[Change]) -> None:
    if not changes:
        tree.add("[dim]nothing differs[/]")
    for place, found in groupby(changes, key=lambda change: change["place"]):
        here = list(found)
        branch = tree.add(f"[cyan]{escape(place)}[/]") if place else tree
        kind = next((change for change in here if change["path"] == "kind"), None)
        if kind and None in (kind["old"], kind["new"]):
            branch.add(f"[dim]only in the {'new' if kind['old'] is None else 'old'} one[/]")
            continue
        for change in here:
            path, old, new = change["path"], change["old"], change["new"]
            shown = f"{path}: {_cell(path, old) or '-'} → {_cell(path, new) or '-'}"
            branch.add(escape(shown))


def _sentences(reasons: Sequence[Mapping[str, Any]] | None) -> list[str]:
    return sentences(map(Reason.told, reasons or ()))


def score_text(score: ScoreRow) -> str:
    """0.833 (25/30, 95% 0.65-0.94, 2 crashed): a rate never without its count, nor without the
    interval that the evaluation wrote."""
    left_out = [f"{score[name]} {name}" for name in ("crashed", "pending") if score[name]]
    if score["success_rate"] is None:
        return f"unknown ({', '.join(left_out) or 'no episodes'})"
    parts = [f"{score['successes']}/{score['n']}"]
    if score["low"] is not None and score["high"] is not None:
        parts.append(f"95% {score['low']:.2f}-{score['high']:.2f}")
    return f"{score['success_rate']:.3f} ({', '.join([*parts, *left_out])})"


def short_code(code: str | None) -> str:
    kind, colon, value = (code or "unknown").partition(":")
    return f"{kind}:{value[:12]}" if colon else kind


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """(dotted path, value) of every leaf of a nested mapping; lists are leaves."""
    if not isinstance(value, Mapping):
        return [(path, value)]
    return [
        leaf
        for name, item in value.items()
        for leaf in leaves(item, f"{path}.{name}" if path else str(name))
    ]


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> Fitting:
    """Any rows as a table; keys shortened as everywhere, nulls blank. Nothing is cut where it gets
    too wide."""
    names = list(columns or (rows[0] if rows else ()))
    table = Table(box=None, header_style="bold")
    for name in names:
        table.add_column(escape(name), overflow="fold", no_wrap=name == "run_id")
    for row in rows:
        table.add_row(*(escape(_cell(name, row[name])) for name in names))
    return Fitting(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if name == "reasons" and isinstance(value, list):
        return "; ".join(_sentences(value))
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    text = str(value)
    if name == "code" or name.endswith(".code"):
        return short_code(text)
    is_digest = name in ("key", "code_fingerprint") or name.endswith(("_key", "content", "digest"))
    return text[:12] if (is_digest and len(text) == 64) or name == "git_commit" else text
