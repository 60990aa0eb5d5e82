"""What a report shows of the models behind a policy and of what the policy looks at."""

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

import duckdb

from foundry_core.evaluation.comparison.report import table_html
from foundry_core.evaluation.rollout.attribution import FILE, FOLDER
from foundry_core.files import read_json
from foundry_core.lineage.connection import rows
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact

Section = tuple[str, str]
_COLUMNS = {
    "llm_loss": "LLM loss, nats per token",
    "bits_per_byte": "text, bits per byte",
    "caption_loss": "caption loss",
    "caption_f1": "caption F1",
    "pixel_error_px": "grounding, px",
    "offset_error_cm": "way to the object, cm",
    "vqa_accuracy": "VQA",
    "action_error_mm": "action error, mm",
}


def quality_rows(
    connection: duckdb.DuckDBPyConnection, run_id: str
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the run's part of stage_quality, without the columns that say nothing;
    both empty where no model was measured."""
    query = "from stage_quality where run_id = ? order by stage"
    found = list(rows(connection, query, [run_id], of=dict[str, Any]))
    shown = [name for name in _COLUMNS if any(row[name] is not None for row in found)]
    if not shown:
        return [], []
    header = ["evaluated", *(_COLUMNS[name] for name in shown), "success [95 %]"]
    body = [
        [row["stage"], *("" if row[n] is None else f"{row[n]:.4g}" for n in shown), _success(row)]
        for row in found
    ]
    return header, body


def quality_section(connection: duckdb.DuckDBPyConnection, run_id: str) -> list[Section]:
    """The same, for the report."""
    header, body = quality_rows(connection, run_id)
    if not header:
        return []
    measured = _COLUMNS["action_error_mm"] in header
    held_out = "its action error on held-out episodes, " if measured else ""
    note = (
        f"A row is a policy: its models' exams, {held_out}its success. "
        "<code>foundry lineage sql &quot;from stage_quality&quot;</code> has every run's."
    )
    return [("From language to success", f"{table_html(header, body)}<p class=note>{note}</p>")]


def _success(row: Mapping[str, Any]) -> str:
    if row["success_rate"] is None:
        return "no episodes"
    text = f"{100 * row['success_rate']:.0f} % of {row['n']}"
    known = row["low"] is not None and row["high"] is not None
    return f"{text} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]" if known else text


def looking_section(
    store: Store, artifacts: Mapping[str, Artifact], labels: Mapping[str, str]
) -> list[Section]:
    """Pictures of what counted for evaluated policies, where an evaluation asked for them. labels:
    of artifacts, by key."""
    figures = [
        figure
        for artifact in artifacts.values()
        if artifact.kind == "evaluate"
        for figure in _figures(store, artifact, labels.get(artifact.key, artifact.key[:12]))
    ]
    if not figures:
        return []
    note = (
        "Left what a camera sees; right, in red, the parts without which the chunk of actions "
        "moves most; from an early plan of the episode down to a late one. Below, how far the "
        "chunk moves without a whole camera and without a word, mean over the plans. Red is "
        "relative to the episode's strongest part: only the distances say how much it looks."
    )
    return [("Is it looking?", f"<p class=note>{note}</p>{''.join(figures)}")]


def _figures(store: Store, artifact: Artifact, label: str) -> list[str]:
    stated = store.file_path(artifact, f"{FOLDER}/{FILE}")
    found = []
    for one in read_json(stated)["episodes"] if stated else ():
        picture = store.file_path(artifact, f"{FOLDER}/{one['picture']}")
        if picture is None:
            continue
        outcome = "success" if one["success"] else "failure"
        caption = f"{one['task']}, scenario {one['scenario']}: {outcome}"
        source = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
        alt = escape(f"{label}: what counts in {caption}", quote=True)
        found.append(
            f'<figure><img src="{source}" alt="{alt}"><figcaption><b>{escape(label)}</b> '
            f"{escape(caption)}. {escape(_words(one))}</figcaption></figure>"
        )
    return found


def _words(episode: Mapping[str, Any]) -> str:
    """What moves the chunk: "without workspace 12 mm, wrist 30 mm; without “open” 3 mm"."""
    moments, unit = episode["moments"], f" {episode['unit']}".rstrip()

    def far(values: list[float]) -> str:
        return f"{sum(values) / len(values):.2g}{unit}"

    cameras = {c: [m["cameras"][c]["whole"] for m in moments] for c in moments[0]["cameras"]}
    words = [word for word, _ in moments[0]["words"]]
    by_word = [[moment["words"][at][1] for moment in moments] for at in range(len(words))]
    parts = []
    if cameras:
        seen = ", ".join(f"{name} {far(values)}" for name, values in cameras.items())
        parts.append(f"The chunk moves without {seen}")
    if words:
        said = ", ".join(f"“{w}” {far(v)}" for w, v in zip(words, by_word, strict=True))
        whole = far([moment["sentence"] for moment in moments])
        parts.append(f"without {said}; without the sentence {whole}")
    return "; ".join(parts) + "."
