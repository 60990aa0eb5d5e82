import re
import xml.etree.ElementTree as ElementTree

import pytest

from foundry_core.lineage import graph
from foundry_core.lineage.queries import graph_of

SVG = "{http://www.w3.org/2000/svg}"
NODES = [
    {"name": "tok", "kind": "train_tokenizer", "key": "1" * 64, "action": "reuse"},
    {"name": "text", "kind": "t", "key": "2" * 64, "action": "reuse"},
    {"name": "llm", "kind": "m", "key": "3" * 64, "action": "run"},
    {"name": 'a "b" <c>|d', "kind": "m", "key": "4" * 64, "action": "blocked"},
]
EDGES = [
    {"source": "tok", "target": "text", "label": "tokenizer"},
    {"source": "text", "target": "llm", "label": "text"},
    {"source": "tok", "target": "llm", "label": "tokenizer"},
    {"source": "llm", "target": NODES[3]["name"], "label": "llm"},
    {"source": "tok", "target": NODES[3]["name"], "label": "tokenizer"},
]


def boxes(root):
    return [
        tuple(float(rect.get(name)) for name in ("x", "y", "width", "height"))
        for rect in root.iter(f"{SVG}rect")
    ]


def test_svg_is_well_formed_with_every_stage_once_and_no_overlaps():
    text = graph.svg(NODES, EDGES)
    root = ElementTree.fromstring(text)
    names = [
        element.text for element in root.iter(f"{SVG}text") if element.get("class") == "fl-name"
    ]
    assert sorted(names) == sorted(stage["name"] for stage in NODES)
    classes = [g.get("class") for g in root.iter(f"{SVG}g")]
    assert classes == [f"fl-node fl-{stage['action']}" for stage in NODES]
    found = boxes(root)
    width, height = map(float, root.get("viewBox").split()[2:])
    for i, (x, y, w, h) in enumerate(found):
        assert x >= 0 and x + w <= width and y >= 0 and y + h <= height
        for x2, y2, w2, h2 in found[:i]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    assert "prefers-color-scheme:dark" in text and "http" not in text.replace(SVG[1:-1], "")


def test_edges_run_left_to_right_and_never_through_a_box():
    root = ElementTree.fromstring(graph.svg(NODES, EDGES))
    found = boxes(root)
    paths = [p.get("d") for p in root.iter(f"{SVG}path") if p.get("class") == "fl-edge"]
    assert len(paths) == len(EDGES)
    for path in paths:
        numbers = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", path)]
        assert numbers[0] < numbers[-2]
        for x, y in _horizontal_runs(path):
            for bx, by, bw, bh in found:
                assert not (bx < x < bx + bw and by < y < by + bh)


def _horizontal_runs(path):
    """The middle of every straight run along a row."""
    y = x = 0.0
    for command, text in re.findall(r"([MCH])([^MCH]*)", path):
        numbers = [float(number) for number in text.split()]
        if command == "H":
            yield (x + numbers[0]) / 2, y
            x = numbers[0]
        else:
            x, y = numbers[-2:]


def test_the_same_graph_is_drawn_the_same():
    assert graph.svg(NODES, EDGES) == graph.svg(list(NODES), list(EDGES))


def test_mermaid_and_dot_name_every_node_and_edge_and_escape():
    text = graph.mermaid(NODES, EDGES)
    assert text.startswith("flowchart LR\n") and text.count("-->") == len(EDGES)
    assert 'n3["a &quot;b&quot; &lt;c&gt;&#124;d<br/>m 444444444444"]:::blocked' in text
    dot = graph.dot(NODES, EDGES)
    assert dot.count("->") == len(EDGES)
    assert '"a \\"b\\" <c>|d" [label="a \\"b\\" <c>|d\\nm 444444444444"' in dot


def test_edges_to_stages_outside_are_left_out():
    edges = [{"source": "elsewhere", "target": "tok", "label": "x"}]
    assert "elsewhere" not in graph.svg(NODES, edges) + graph.dot(NODES, edges)


def test_an_empty_graph_is_a_picture_too():
    ElementTree.fromstring(graph.svg([], []))


@pytest.mark.parametrize("what", ["run", "artifact"])
def test_graphs_from_the_index(lineage, history, what):
    names = history.names
    nodes, edges = graph_of(lineage, names.second if what == "run" else names.evals[1]["key"])
    assert len(nodes) == 4 and len(edges) == 4
    actions = {node["kind"]: node["action"] for node in nodes}
    expected = {"run": ("reuse", "run"), "artifact": ("gone", "reuse")}[what]
    assert (actions["convert_robot"], actions["train_vla"]) == expected
    assert len(boxes(ElementTree.fromstring(graph.svg(nodes, edges)))) == 4
