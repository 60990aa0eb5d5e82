"""The parts of an ablation's report that a run's has not: curves with seeds as bands, measures of
every stage, the graph by what was shared, cost, videos side by side, how to repeat it."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from flows.ablation.answer_text import MEASURES, command_text, measure_rows
from foundry_core.evaluation.comparison.plots import banded_curves, measure_panels
from foundry_core.evaluation.comparison.report import Curves, table_html
from foundry_core.evaluation.comparison.result import Comparison
from foundry_core.lineage import graph
from foundry_core.lineage.answers import GraphEdge, GraphNode
from foundry_core.pipeline.cost import duration

Json = Mapping[str, Any]
Section = tuple[str, str]
# Worst first: what a node of several seed runs is coloured by.
_ACTIONS = ("failed", "cancelled", "blocked", "run", "shared", "reuse")
_LEGEND = {
    "run": "ran for one variant",
    "shared": "ran once for several",
    "reuse": "was there before",
    "failed": "failed",
    "cancelled": "cancelled",
    "blocked": "not reached",
}
_SCENARIOS, _SIDE_BY_SIDE = 3, 6
_PACKAGES = ("torch", "ray", "prefect", "mujoco", "metaworld", "transformers", "duckdb")


def split_name(merged: str) -> tuple[str, str]:
    """'steps=20/1:vla' → ('steps=20', 'vla'): a stage of the merged graph is called after the first
    seed run that needs it."""
    label, colon, stage = merged.partition(":")
    if not colon:
        return "", merged
    variant, slash, seed = label.rpartition("/")
    return (variant if slash and seed.isdigit() else label), stage


def certainty(judged: Comparison, missing: Sequence[str]) -> Section:
    """How often the verdict is wrong, and what it could not have seen."""
    fewest = min((len(one.seeds) for one in judged.overall.values()), default=1)
    percent = f"{100 * judged.alpha:g} %"
    held = "variant equal to the base" if judged.base else "pair of equal policies"
    says = [
        f"If nothing differed, a {held} would be called different in at most about {percent} of "
        f"such tables, whichever of the {judged.size} it is."
    ]
    if judged.contrasts:
        says.append("The effects of settings are a family of their own, with the same promise.")
    if fewest > 1:
        says.append(
            f"A training that collapses once in ten runs is not seen in {fewest}: look at every "
            "seed's rate below."
        )
    else:
        says.append("One training run each: a repeated run of the same recipe may end elsewhere.")
    says.append("Nothing here is about speed within an episode, or about other tasks.")
    items = "".join(f"<li>{escape(one)}</li>" for one in [*missing, *says])
    return "How sure", f"<ul>{items}</ul>"


def measures(quality: Sequence[Json], variants: Sequence[str]) -> list[Section]:
    """What every stage measured of each variant, as panels and as a table."""
    if not quality:
        return []
    rows = measure_rows(quality, variants)
    by_measure: dict[str, list[tuple[str, float, float, float]]] = {}
    for row in quality:
        if row["mean"] is not None and row["measure"] != "gpu_seconds":
            known = row["low"] is not None
            low, high = (row[end if known else "mean"] for end in ("low", "high"))
            point = (row["variant"], row["mean"], low, high)
            by_measure.setdefault(MEASURES[row["measure"]][0], []).append(point)
    order = [title for title, _ in MEASURES.values() if title in by_measure]
    picture = measure_panels({title: by_measure[title] for title in order}, list(variants))
    note = (
        "From the language model down to success and cost: the mean over seeds with its 95 % "
        "interval by Student's t. An effect is born where the intervals part, and lost where they "
        "meet again. Seconds and GPU seconds are of all that a run is made of; milliseconds per "
        "chunk are of the policy alone, under the load it was played in, those per control step "
        "have the simulator in them. "
        "<code>foundry lineage sql &quot;from ablation_quality&quot;</code> has every ablation's."
    )
    header, *table = zip(*rows, strict=True)
    shown = table_html(["variant", *header[1:]], table)
    body = f'<div class="wide">{picture}</div>{shown}<p class=note>{note}</p>'
    return [("From language to success", body)]


def curves(losses: Mapping[str, Curves]) -> list[Section]:
    """A picture for every training stage: a line per variant, the seeds as a band around it."""
    found: dict[str, dict[str, list[Sequence[tuple[float, float]]]]] = {}
    for merged, series in losses.items():
        variant, stage = split_name(merged)
        for name, points in series.items():
            if name == "loss" or "loss" not in series:
                found.setdefault(f"{stage}: {name}", {}).setdefault(variant, []).append(points)
    pictures = [banded_curves(title, by_variant) for title, by_variant in found.items()]
    if not pictures:
        return []
    note = (
        "A line is the mean over a variant's seeds, the band their range. A stage that variants "
        "share is drawn for the first of them."
    )
    return [
        ("Training curves", f'<div class="grid">{"".join(pictures)}</div><p class=note>{note}</p>')
    ]


def merged_graph(
    nodes: Sequence[GraphNode], edges: Sequence[GraphEdge], users: Mapping[str, set[str]]
) -> str:
    """The merged graph with the seeds of a variant as one box, coloured by what ran, what was
    shared and what was there. users: key → the variants that it is part of."""
    names, boxes = {}, dict[str, GraphNode]()
    counts: Counter[str] = Counter()
    for node in nodes:
        variant, stage = split_name(node["name"])
        own = users.get(node["key"] or "", set())
        name = f"all: {stage}" if len(own) > 1 and variant else node["name"]
        if len(own) <= 1 and variant:
            name = f"{variant}: {stage}"
        action = node["action"]
        if action == "run" and len(own) > 1:
            action = "shared"
        names[node["name"]] = name
        counts[name] += 1
        known = boxes.setdefault(name, {**node, "name": name, "action": action})
        known["action"] = min(known["action"], action, key=_rank)
    for name, box in boxes.items():
        if counts[name] > 1:
            box["key"] = f"× {counts[name]} seeds"
    drawn = {(names[e["source"]], names[e["target"]]) for e in edges if e["target"] in names}
    joined: list[GraphEdge] = [
        {"source": source, "target": target, "label": ""} for source, target in sorted(drawn)
    ]
    present = {box["action"] for box in boxes.values()}
    legend = "".join(
        f'<span class="key"><i class="fl-{action}"></i>{_LEGEND[action]}</span>'
        for action in _ACTIONS
        if action in present
    )
    return f"{graph.svg(list(boxes.values()), joined)}<p class=note>{legend}</p>"


def _rank(action: str) -> int:
    return _ACTIONS.index(action) if action in _ACTIONS else len(_ACTIONS)


def cost(head: Json, quality: Sequence[Json]) -> Section:
    """What it took, and what sharing and reuse saved."""
    spent, saved = head["spent_seconds"] or 0.0, head["saved_seconds"] or 0.0
    alone = sum(row["mean"] * row["seeds"] for row in quality if row["measure"] == "seconds")
    rows = [
        ["work done", duration(spent)],
        [f"reused: {head['reused'] or 0} stages, which had cost", duration(saved)],
    ]
    if alone > spent + saved:
        more = duration(alone - spent - saved)
        rows.append(["shared: what every seed run alone would have cost besides", more])
    if head["spent_gpu_seconds"]:
        rows.insert(1, ["of it on GPUs", f"{head['spent_gpu_seconds'] / 3600:.2f} GPU hours"])
    return "Cost", table_html(["", ""], rows)


def side_by_side(folders: Mapping[str, Path]) -> list[Section]:
    """Recorded episodes of scenarios that variants solve and fail, next to each other. folders:
    variant → the files of its first seed's evaluation; the base first."""
    films = {name: _films(folder) for name, folder in folders.items()}
    scenarios: dict[tuple[str, str], dict[str, tuple[str, Path]]] = {}
    for name, found in films.items():
        for place, film in found.items():
            scenarios.setdefault(place, {})[name] = film
    differ = [
        (place, by_variant)
        for place, by_variant in sorted(scenarios.items())
        if len({outcome for outcome, _ in by_variant.values()}) > 1
    ]
    if not scenarios:
        return []
    if not differ:
        text = f"In all {len(scenarios)} recorded scenarios the variants end alike."
        return [("Where variants differ", f"<p class=note>{text}</p>")]
    parts = []
    for (task, scenario), by_variant in differ[:_SCENARIOS]:
        figures = "".join(
            _figure(name, f"{task}, scenario {int(scenario)}", *film)
            for name, film in list(by_variant.items())[:_SIDE_BY_SIDE]
        )
        parts.append(
            f"<h3>{escape(task)}, scenario {int(scenario)}</h3><div class=beside>{figures}</div>"
        )
    note = (
        f"Of {len(scenarios)} recorded scenarios the first seed's policies end differently in "
        f"{len(differ)}. One scenario is an example and no evidence."
    )
    return [("Where variants differ", f"{''.join(parts)}<p class=note>{note}</p>")]


def _films(folder: Path) -> dict[tuple[str, str], tuple[str, Path]]:
    """(task, scenario) → outcome and the video, else the filmstrip."""
    found = {}
    for pattern in ("frames/*/*.png", "records/videos/*/*.webp"):
        for path in sorted(folder.glob(pattern)):
            scenario, _, outcome = path.stem.partition("_")
            found[path.parent.name, scenario] = (outcome, path)
    return found


def _figure(variant: str, what: str, outcome: str, path: Path) -> str:
    kind = "webp" if path.suffix == ".webp" else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    alt = escape(f"{variant}: {what}, {outcome}", quote=True)
    return (
        f'<figure><img src="{source}" alt="{alt}"><figcaption><b>{escape(variant)}</b> '
        f"{escape(outcome)}</figcaption></figure>"
    )


def repeat(command: Any, facts: Json) -> Section:
    """The exact command, and the environment that it ran in."""
    packages = facts["packages"]
    versions = [f"{name} {'/'.join(packages[name])}" for name in _PACKAGES if name in packages]
    shown = {
        "code": ", ".join(facts["code"]),
        "Python": ", ".join(facts["python"]),
        "packages": ", ".join(versions),
        "hosts": ", ".join(facts["hosts"]),
        "hardware": "; ".join(facts["hardware"]),
    }
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in shown.items() if text
    )
    return "To repeat it", f"<pre>{escape(command_text(command))}</pre><dl>{rows}</dl>"
