"""What a report says of a policy, or of any trained model, on data that it was not trained on."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from flows.reports.curves import Lines, held_out_facts, recorded_lines
from foundry_core.evaluation.comparison.report import table_html
from foundry_core.home import store_uri
from foundry_core.lineage.records import VALIDATION
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact
from foundry_core.store.open import open_store
from foundry_core.training.validation.measures import (
    BASELINES,
    EMA,
    HOLD,
    MEAN,
    NEAREST,
    RAW,
    is_number,
    last_measures,
    number,
    overall,
    sentences,
    title,
)

_COLUMNS = {EMA: "averaged weights", RAW: "weights", "before": "before training", **BASELINES}
TITLE = "On held-out data"
_NOTE = (
    "At the last validation, of data that no step was trained on; of a policy, how far the first "
    "chunk that it says lies from what was recorded, over all its steps: not whether the robot "
    "succeeds."
)
_ANSWERS = {
    MEAN: "Mean action: what the training set does on average at each step, whatever is seen. A "
    "policy that is no better has not learned yet what this measures.",
    HOLD: "Holding still: staying where the robot is measured now.",
}
_ONE = {"text": "row", "captions": "caption", "robot": "window"}
_RECORDINGS = {"text": "documents", "robot": "episodes"}


def held_out_section(store: Store, artifacts: Mapping[str, Artifact]) -> list[tuple[str, str]]:
    """A table of all that was validated, a row for each measure of a modality; [] of nothing."""
    rows: list[dict[str, str]] = []
    notes = []
    for name, artifact in artifacts.items():
        if artifact.kind.startswith("train_"):
            lines = recorded_lines(store, artifact, VALIDATION)
            rows += _rows(name, artifact, lines, held_out_facts(store, artifact))
            notes += _kept(name, artifact, lines)
    if not rows:
        return []
    shown = [name for name in _COLUMNS if any(row.get(name) for row in rows)]
    header = ["measured", *(_COLUMNS[name] for name in shown), "on"]
    body = [[row["measure"], *(row.get(name, "") for name in shown), row["on"]] for row in rows]
    said = [_NOTE, *(text for name, text in _ANSWERS.items() if name in shown), *notes]
    text = " ".join(said)
    return [(TITLE, table_html(header, body) + f"<p class=note>{escape(text)}</p>")]


def in_a_line(kind: str, key: str, measures: Mapping[str, float]) -> str:
    """The last measures of a training's artifact, with units and on how much they were measured, as
    far as the store still knows."""
    store = open_store(store_uri())
    artifact = store.read(kind, key)
    facts = held_out_facts(store, artifact) if artifact else {}
    read = {name: _on(name, of) for name, of in facts.get("read", {}).items()}
    on = ", ".join(filter(None, read.values()))
    said = "; ".join(sentences(measures, facts.get("gripper", "")))
    return f"{said}; on {on}" if on else said


def _rows(
    name: str, artifact: Artifact, lines: Lines, facts: Mapping[str, Any]
) -> list[dict[str, str]]:
    measures = last_measures(artifact.metrics)
    first = lines[0] if len(lines) > 1 and lines[0].get("step") == 0 else {}
    left = EMA if any(whose == EMA for whose, *_ in overall(measures)) else RAW
    found: dict[tuple[str, str], dict[str, str]] = {}
    for whose, modality, measure in overall(measures):
        if measure.startswith(NEAREST):
            continue
        path = f"{whose}/{modality}/{measure}"
        row = found.setdefault((modality, measure), {})
        row[whose] = number(measures[path])
        if whose == left and is_number(first.get(path)):
            row["before"] = number(first[path])
    for (modality, measure), row in found.items():
        row["measure"] = f"{name}: {title(modality, measure, facts.get('gripper', ''))}"
        row["on"] = _on(modality, facts.get("read", {}).get(modality, {}))
    return list(found.values())


def _on(modality: str, read: Mapping[str, Mapping[str, Any]]) -> str:
    """`32 windows of 2 episodes`, of all datasets together."""
    if not read:
        return ""
    samples = sum(one["samples"] for one in read.values())
    one = _ONE.get(modality, "sample")
    said = f"{samples} {one}{'' if samples == 1 else 's'}"
    recordings = [one["recordings"] for one in read.values()]
    if None in recordings:
        return said
    number_of = sum(recordings)
    many = _RECORDINGS.get(modality, "recordings")
    return f"{said} of {number_of} {many.removesuffix('s') if number_of == 1 else many}"


def _kept(name: str, artifact: Artifact, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the stage left other weights than the last."""
    step = artifact.metrics.get("best_step")
    rule = ((artifact.recipe.get("training") or {}).get("validation") or {}).get("best") or {}
    if not lines or step is None or not rule.get("keep", True) or step == lines[-1]["step"]:
        return []
    value = number(artifact.metrics["best_value"])
    return [f"{name} left the weights of step {step:g}, whose {rule.get('measure')} was {value}."]
