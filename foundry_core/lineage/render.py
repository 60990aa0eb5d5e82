"""Lineage for the terminal: trees and tables of rich."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

Row = Mapping[str, Any]


def trace_tree(roots: Sequence[Row], *, recipes: bool = True, files: int = 8) -> Tree:
    """What `queries.trace` found. `files`: how many per artifact before the rest is counted."""
    top = Tree("lineage", hide_root=True)
    pending: list[tuple[Tree, Row]] = [(top, root) for root in reversed(roots)]
    while pending:
        parent, node = pending.pop()
        branch = parent.add(_title(node))
        if node.get("repeated"):
            continue
        for line in _facts(node, recipes):
            branch.add(line)
        _add_files(branch, node.get("file_list", ()), files)
        pending += [(branch, child) for child in reversed(node["inputs"])]
    return top


def _title(node: Row) -> str:
    role = f"[cyan]{escape(node['role'])}[/]: " if node["role"] else ""
    title = f"{role}[bold]{escape(node['kind'] or 'unknown')}[/] {node['key'][:12]}"
    if node.get("repeated"):
        return f"{title} [dim](shown above)[/]"
    return title if node.get("present") else f"{title} [yellow](no longer in the store)[/]"


def _facts(node: Row, recipes: bool) -> list[str]:
    lines = [
        f"success {score_text(score)}  {escape(score['task'])}" for score in node.get("scores", ())
    ]
    if node.get("kind") is None:
        return [*lines, "[dim]nothing is known of it[/]"]
    commit = (node.get("git_commit") or "no git")[:12]
    dirty = " [yellow]with uncommitted changes[/]" if node.get("git_dirty") else ""
    if node.get("git_dirty") and node.get("diff_digest"):
        dirty += f" {node['diff_digest'][:12]}"
    lines.append(f"code {escape(short_code(node['code']))} at commit {commit}{dirty}")
    built = f"content {(node['content'] or '')[:12]}, seed {node['seed']}, run {node['run_id']}"
    if node.get("seconds") is not None:
        built += f", {node['seconds']:.1f} s"
    lines.append(escape(built))
    if recipes and node.get("recipe"):
        text = "  ".join(f"{path}={value}" for path, value in leaves(node["recipe"]))
        lines.append(f"[dim]{escape(text)}[/]")
    for name, identity in (node.get("sources") or {}).items():
        lines.append(f"source {escape(name)} {escape(str(identity))}")
    return lines


def _add_files(branch: Tree, files: Sequence[Row], limit: int) -> None:
    outputs = [file for file in files if file["role"] == "output"]
    for file in outputs[:limit]:
        branch.add(f"{escape(file['path'])} [dim]{file['size']:,} B sha256 {file['sha256']}[/]")
    if len(outputs) > limit:
        branch.add(f"[dim]and {len(outputs) - limit} more files (all of them with --json)[/]")


def score_text(score: Row) -> str:
    """0.833 (25/30, Wilson 0.66-0.93): a rate never without its count and interval."""
    if score["success_rate"] is None:
        return f"unknown ({score['crashed']} crashed)"
    crashed = f", {score['crashed']} crashed" if score["crashed"] else ""
    counted = f"{score['successes']}/{score['n']}"
    interval = f"Wilson {score['low']:.2f}-{score['high']:.2f}"
    return f"{score['success_rate']:.3f} ({counted}, {interval}{crashed})"


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


def table_of(rows: Sequence[Row], columns: Sequence[str] | None = None) -> Table:
    """Any rows as a table; keys shortened as everywhere, nulls blank."""
    names = list(columns or (rows[0] if rows else ()))
    table = Table(*names, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(escape(_cell(name, row[name])) for name in names))
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = str(value)
    is_digest = name == "key" or name.endswith(("_key", "content", "digest"))
    return text[:12] if is_digest and len(text) == 64 else text
