"""A lineage graph as Mermaid, Graphviz DOT, or SVG laid out here (no graphviz binary needed).

Nodes and edges are those of `queries.graph_of`. The output is a pure function of both.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from foundry_core.lineage.answers import GraphEdge, GraphNode

# Of each action: fill and stroke on a light ground, then on a dark one.
_COLOURS = {
    "reuse": ("#e3f4e8", "#2f8f52", "#173d26", "#5cc485"),
    "run": ("#e4eefb", "#2f6fc4", "#16304f", "#6aa7f0"),
    "shared": ("#efe7fb", "#7a4fc0", "#33204f", "#b491ee"),
    "blocked": ("#f1f1f1", "#8a8a8a", "#303030", "#9a9a9a"),
    "failed": ("#fbe5e3", "#c4402f", "#4d1c16", "#f08a7c"),
    "cancelled": ("#f1f1f1", "#8a8a8a", "#303030", "#9a9a9a"),
    "gone": ("#fdf3dd", "#b58316", "#40320d", "#e0b95a"),
}
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 200, 54, 72, 22, 16
_SWEEPS = 8


def mermaid(nodes: Sequence[GraphNode], edges: Sequence[GraphEdge]) -> str:
    """A Mermaid flowchart."""
    names = {node["name"]: f"n{i}" for i, node in enumerate(nodes)}
    lines = ["flowchart LR"]
    for node in nodes:
        text = "<br/>".join(_mermaid_text(line) for line in _lines(node))
        lines.append(f'  {names[node["name"]]}["{text}"]:::{_action(node)}')
    for edge in _known(nodes, edges):
        label = f'|"{_mermaid_text(edge["label"])}"|' if edge["label"] else ""
        lines.append(f"  {names[edge['source']]} -->{label} {names[edge['target']]}")
    for action, (fill, stroke, _, _) in _COLOURS.items():
        lines.append(f"  classDef {action} fill:{fill},stroke:{stroke},color:#111")
    return "\n".join(lines) + "\n"


def dot(nodes: Sequence[GraphNode], edges: Sequence[GraphEdge]) -> str:
    """A Graphviz digraph."""
    lines = ["digraph lineage {", "  rankdir=LR;"]
    lines.append('  node [shape=box style="rounded,filled" fontname="sans-serif" fontsize=11];')
    lines.append('  edge [fontname="sans-serif" fontsize=9];')
    for node in nodes:
        fill, stroke, _, _ = _COLOURS[_action(node)]
        label = _dot_text("\n".join(_lines(node)))
        lines.append(
            f'  {_dot_text(node["name"])} [label={label} fillcolor="{fill}" color="{stroke}"];'
        )
    for edge in _known(nodes, edges):
        label = f" [label={_dot_text(edge['label'])}]" if edge["label"] else ""
        lines.append(f"  {_dot_text(edge['source'])} -> {_dot_text(edge['target'])}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def svg(nodes: Sequence[GraphNode], edges: Sequence[GraphEdge], *, title: str = "Lineage") -> str:
    """A self-contained <svg>, left to right; follows the reader's light or dark scheme. Ids and
    classes are prefixed, so that it can be inlined in a page."""
    layout = _Layout(nodes, _known(nodes, edges))
    width, height = layout.size()
    body = [_svg_edge(layout.route(edge), edge) for edge in layout.edges]
    body += [_svg_node(node, *layout.position(node["name"])) for node in nodes]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" class="fl-graph" role="img" '
            f'style="max-width:100%;height:auto" aria-label={quoteattr(title)}>',
            f"<style>{style()}</style>",
            '<defs><marker id="fl-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" class="fl-head"/></marker>'
            "</defs>",
            *body,
            "</svg>\n",
        ]
    )


def placed(nodes: Sequence[GraphNode], edges: Sequence[GraphEdge]) -> dict[str, Any]:
    """The same drawing as data, for a page that draws it itself: width, height, nodes (each with
    x, y, width, height, title, subtitle), edges (path: as an SVG path's `d`)."""
    layout = _Layout(nodes, _known(nodes, edges))
    width, height = layout.size()
    boxes = []
    for node in nodes:
        x, y = layout.position(node["name"])
        title, subtitle = _lines(node)
        texts = {"title": _fit(title, 24), "subtitle": _fit(subtitle, 30)}
        box = {"x": x, "y": y, "width": _WIDTH, "height": _HEIGHT, "action": _action(node)}
        boxes.append({**node, **box, **texts})
    return {
        "width": width,
        "height": height,
        "nodes": boxes,
        "edges": [{**edge, "path": _path(layout.route(edge))} for edge in layout.edges],
    }


def _lines(node: GraphNode) -> list[str]:
    """The text of a node: its name (unless that is a key), its kind, the short key."""
    key, kind = node["key"] or "", node["kind"] or "unknown"
    name = node["name"]
    if name in (key, kind):
        return [kind, key[:12]]
    return [name, f"{kind} {key[:12]}".strip()]


def _action(node: GraphNode) -> str:
    return node["action"] if node["action"] in _COLOURS else "blocked"


def _known(nodes: Sequence[GraphNode], edges: Sequence[GraphEdge]) -> list[GraphEdge]:
    names = {node["name"] for node in nodes}
    return [edge for edge in edges if edge["source"] in names and edge["target"] in names]


def _mermaid_text(text: str) -> str:
    return escape(text, {'"': "&quot;", "|": "&#124;"})


def _dot_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


@dataclass
class _Layout:
    """Layers by longest path, order within a layer by barycentres, straight columns.

    An edge that spans layers passes through a free row of each (a waypoint), so that it does not
    run behind boxes.
    """

    nodes: Sequence[GraphNode]
    edges: Sequence[GraphEdge]
    layer: dict[str, int] = field(default_factory=dict)
    columns: list[list[str]] = field(default_factory=list)
    row: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._assign_layers()
        self._links = [link for edge in self.edges for link in self._chain(edge)]
        count = 1 + max(self.layer.values(), default=0)
        self.columns = [[n for n in self.layer if self.layer[n] == i] for i in range(count)]
        for sweep in range(_SWEEPS):
            self._sweep(forward=sweep % 2 == 0)
        tallest = max(map(len, self.columns), default=1)
        for column in self.columns:
            offset = (tallest - len(column)) / 2
            self.row |= {name: i + offset for i, name in enumerate(column)}

    def _assign_layers(self) -> None:
        inputs: dict[str, list[str]] = {node["name"]: [] for node in self.nodes}
        for edge in self.edges:
            inputs[edge["target"]].append(edge["source"])
        sorter = TopologicalSorter(inputs)
        with contextlib.suppress(CycleError):
            sorter.prepare()
        while sorter.is_active():
            for name in sorter.get_ready():
                self.layer[name] = 1 + max((self.layer[up] for up in inputs[name]), default=-1)
                sorter.done(name)
        for name in inputs:  # a cycle cannot be a lineage; draw its members all the same
            self.layer.setdefault(name, 0)

    def _waypoint(self, edge: GraphEdge, layer: int) -> str:
        return f"\0{edge['source']}\0{edge['target']}\0{layer}"

    def _chain(self, edge: GraphEdge) -> list[tuple[str, str]]:
        first, last = self.layer[edge["source"]], self.layer[edge["target"]]
        stops = [edge["source"]]
        for layer in range(first + 1, last):
            stops.append(self._waypoint(edge, layer))
            self.layer[stops[-1]] = layer
        stops.append(edge["target"])
        return list(pairwise(stops))

    def _sweep(self, *, forward: bool) -> None:
        neighbours: dict[str, list[str]] = {}
        for source, target in self._links:
            here, there = (target, source) if forward else (source, target)
            neighbours.setdefault(here, []).append(there)
        order = self.columns if forward else self.columns[::-1]
        for before, column in pairwise(order):
            place = {name: (i + 0.5) / len(before) for i, name in enumerate(before)}
            centre = {}
            for i, name in enumerate(column):
                near = [place[other] for other in neighbours.get(name, ()) if other in place]
                centre[name] = sum(near) / len(near) if near else (i + 0.5) / len(column)
            column.sort(key=centre.__getitem__)

    def size(self) -> tuple[int, int]:
        tallest = max(map(len, self.columns), default=1)
        width = 2 * _MARGIN + len(self.columns) * (_WIDTH + _GAP_X) - _GAP_X
        return width, 2 * _MARGIN + tallest * (_HEIGHT + _GAP_Y) - _GAP_Y

    def position(self, name: str) -> tuple[float, float]:
        """Upper left corner."""
        x = _MARGIN + self.layer[name] * (_WIDTH + _GAP_X)
        return x, _MARGIN + self.row[name] * (_HEIGHT + _GAP_Y)

    def route(self, edge: GraphEdge) -> list[tuple[float, float]]:
        """Points an edge passes: out of its source's right side, through the free rows of the
        layers between, into its target's left side."""
        x, y = self.position(edge["source"])
        points = [(x + _WIDTH, y + _HEIGHT / 2)]
        for layer in range(self.layer[edge["source"]] + 1, self.layer[edge["target"]]):
            x, y = self.position(self._waypoint(edge, layer))
            points += [(x, y + _HEIGHT / 2), (x + _WIDTH, y + _HEIGHT / 2)]
        x, y = self.position(edge["target"])
        return [*points, (x, y + _HEIGHT / 2)]


def _svg_node(node: GraphNode, x: float, y: float) -> str:
    title, subtitle = _lines(node)
    action = _action(node)
    detail = f"{node['name']}: {action}\n{node['kind']} {node['key'] or ''}"
    return (
        f'<g class="fl-node fl-{action}"><title>{escape(detail)}</title>'
        f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>'
        f'<text x="{x + 12:g}" y="{y + 23:g}" class="fl-name">{escape(_fit(title, 24))}</text>'
        f'<text x="{x + 12:g}" y="{y + 41:g}" class="fl-sub">{escape(_fit(subtitle, 30))}</text>'
        "</g>"
    )


def _fit(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _path(points: Sequence[tuple[float, float]]) -> str:
    (x, y), path = points[0], f"M{points[0][0]:g} {points[0][1]:g}"
    for i, (to_x, to_y) in enumerate(points[1:]):
        if i % 2:  # along a free row
            path += f"H{to_x:g}"
        else:
            bend = (to_x - x) / 2
            path += f"C{x + bend:g} {y:g} {to_x - bend:g} {to_y:g} {to_x:g} {to_y:g}"
        x, y = to_x, to_y
    return path


def _svg_edge(points: Sequence[tuple[float, float]], edge: GraphEdge) -> str:
    text = f"{edge['source']} → {edge['target']}"
    if edge["label"]:
        text += f" ({edge['label']})"
    return f'<path class="fl-edge" d="{_path(points)}"><title>{escape(text)}</title></path>'


def style() -> str:
    """CSS of the drawing, for pages that draw it themselves, too."""
    light, dark = (
        "".join(
            f".fl-{action}{{--fill:{colours[i]};--edge:{colours[i + 1]}}}"
            f".fl-{action} rect{{fill:{colours[i]};stroke:{colours[i + 1]}}}"
            for action, colours in _COLOURS.items()
        )
        for i in (0, 2)
    )
    return (
        ".fl-graph{font-family:system-ui,sans-serif}.fl-node rect{stroke-width:1.5}"
        ".fl-name{font-size:13px;font-weight:600;fill:#1b1b1b}"
        ".fl-sub{font-size:11px;fill:#555}"
        ".fl-edge{fill:none;stroke:#8b8b8b;stroke-width:1.3;marker-end:url(#fl-arrow)}"
        f".fl-head{{fill:#8b8b8b}}{light}"
        "@media(prefers-color-scheme:dark){.fl-name{fill:#f2f2f2}.fl-sub{fill:#bdbdbd}"
        f"{dark}}}"
    )
