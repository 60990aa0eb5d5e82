"""Past ablations for a person, in 80 columns whatever the terminal: to be mailed and diffed."""

import io
import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.ablation.verdict_table import by_variant, changes_text, p_cell
from foundry_core.evaluation.comparison.p_values import p_text
from foundry_core.pipeline.cost import duration

WIDTH = 80
Json = Mapping[str, Any]
# Measure → what a table calls it, digits after the point.
MEASURES = {
    "llm_loss": ("LLM loss, nats/token", 3),
    "bits_per_byte": ("text, bits/byte", 3),
    "caption_loss": ("caption loss", 3),
    "caption_f1": ("caption F1", 3),
    "pixel_error_px": ("grounding, px", 2),
    "offset_error_cm": ("way to object, cm", 2),
    "vqa_accuracy": ("VQA", 3),
    "action_error_mm": ("action error, mm", 2),
    "success_rate": ("success", 3),
    "success_seconds": ("s to success", 2),
    "chunk_ms": ("policy, ms/chunk", 1),
    "chunk_cpu_ms": ("policy, CPU ms/chunk", 1),
    "step_ms": ("ms/control step", 0),
    "seconds": ("cost, s of work", 0),
    "gpu_seconds": ("cost, GPU s", 0),
}
_CHANGES = 20


def list_text(found: Sequence[Json]) -> str:
    """A block for every ablation, newest first."""
    if not found:
        return "no ablation yet: `foundry ablate PIPELINE --vary PATH=V,V` makes one\n"
    lines = []
    for row in found:
        cost = f"{duration(row['spent_seconds'] or 0)}, saved {duration(row['saved_seconds'] or 0)}"
        size = f"{row['variants']} variants × {row['seeds']} seeds"
        lines += [f"{row['ablation_id']}  {row['status']}", *_wrapped(row["asks"], "  ")]
        lines += _wrapped(f"{_minute(row['started_at'])}; {size}; {cost}", "  ")
        lines += _wrapped(row["verdict"] or "no verdict", "  ")
    return "\n".join(lines) + "\n"


def show_text(found: Json) -> str:
    """The whole answer."""
    lines = [f"{found['ablation_id']}: {found['status']}", *_wrapped(found["asks"])]
    size = f"{found['variants']} variants × {found['seeds']} seeds of {found['base_pipeline']}"
    lines += [f"{_minute(found['started_at'])}; {size}", ""]
    for sentence in filter(None, [found["verdict_text"], *found["missing"]]):
        lines += _wrapped(sentence)
    lines += ["", _table(_variant_rows(found))]
    if found["contrasts"]:
        lines.append(_table(_effect_rows(found["contrasts"])))
    if found["quality"]:
        names = list(dict.fromkeys(row["variant"] for row in found["effects"]))
        lines.append(_table(measure_rows(found["quality"], names, numbered=True)))
    spent, saved = found["spent_seconds"] or 0.0, found["saved_seconds"] or 0.0
    gpu = found["spent_gpu_seconds"] or 0.0
    lines += _wrapped(
        f"cost: {duration(spent)} of work{f', {gpu / 3600:.2f} GPU hours' if gpu else ''}; "
        f"{found['reused']} stages reused, which had cost {duration(saved)}"
    )
    return "\n".join([*lines, *_again(found)]) + "\n"


def compare_text(found: Json) -> str:
    """Two beside each other."""
    lines = []
    for side in ("a", "b"):
        one = found[side]
        lines += _wrapped(f"{side.upper()}  {one['ablation_id']}: {one['status']}. {one['asks']}")
    header = ["sets", "A", "B", "B - A, points [95 %]", "decided A; B"]
    body = [
        [
            row["change"],
            _side(row["a"]),
            _side(row["b"]),
            "-"
            if row["difference"] is None
            else _points(row["difference"], row["low"], row["high"]),
            "; ".join(
                dict.fromkeys(str(s["decision"]) if s else "-" for s in (row["a"], row["b"]))
            ),
        ]
        for row in found["variants"]
    ]
    lines += ["", _table([header, *body])]
    lines += _wrapped("The differences between A and B are shown, not tested.")
    lines += ["", "settings of the bases:"]
    lines += _changes([(f"{c['place']}.{c['path']}", c["old"], c["new"]) for c in found["config"]])
    lines += ["", "code and environment:"]
    words = [(c["what"], ", ".join(c["a"]), ", ".join(c["b"])) for c in found["environment"]]
    return "\n".join([*lines, *_changes(words)]) + "\n"


def _changes(found: Sequence[tuple[str, Any, Any]]) -> list[str]:
    lines = []
    for name, old, new in found[:_CHANGES]:
        lines += _wrapped(f"{name}: {_brief(old)} → {_brief(new)}", "  ")
    if len(found) > _CHANGES:
        lines.append(f"  and {len(found) - _CHANGES} more: --json has all")
    return lines or ["  the same"]


def _brief(value: Any) -> str:
    return textwrap.shorten(str(value if value != "" else "-"), 60, placeholder="…")


def _side(side: Json | None) -> str:
    if not side or side["success"] is None:
        return "-"
    return f"{100 * side['success']:.0f} % of {side['n']}"


def _points(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]"


def _variant_rows(found: Json) -> list[list[str]]:
    header = ["#", "variant", "changes", "success [95 %]", "by seed, %", "p", "decision"]
    body = []
    for number, (name, changes) in enumerate(by_variant(found["effects"]).items(), 1):
        row = changes[0]
        known = row["success"] is not None
        seeds = found["rates"].get(name, {}).values()
        cells = [
            str(number),
            name,
            changes_text(changes),
            f"{100 * row['success']:.0f} % [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
            if known
            else "-",
            " ".join("-" if rate is None else f"{100 * rate:.0f}" for rate in seeds),
            p_cell(row),
            str(row["decision"]).replace(" the base", " base"),
        ]
        body.append(cells)
    return [header, *body]


def _effect_rows(contrasts: Sequence[Json]) -> list[list[str]]:
    header = ["effect", "", "points [95 %]", "p", "decision"]
    return [
        header,
        *(
            [
                one["text"],
                one["kind"],
                _points(one["estimate"], one["low"], one["high"]),
                "" if one["p_corrected"] is None else p_text(one["p_corrected"]),
                one["decision"],
            ]
            for one in contrasts
        ),
    ]


def measure_rows(
    quality: Sequence[Json], variants: Sequence[str], *, numbered: bool = False
) -> list[list[str]]:
    """Header and a row for every measure that a variant has: each variant's mean over its seeds
    with half the width of its interval. numbered: columns by the variant's place."""
    cells = {(row["measure"], row["variant"]): row for row in quality}
    measured = [name for name in variants if any(key[1] == name for key in cells)]
    present = [name for name in MEASURES if any(key[0] == name for key in cells)]
    if not any(row["mean"] for row in quality if row["measure"] == "gpu_seconds"):
        present = [name for name in present if name != "gpu_seconds"]
    header = [f"#{variants.index(n) + 1}" if numbered else n for n in measured]
    body = [
        [
            MEASURES[name][0],
            *(_measure(cells.get((name, one)), MEASURES[name][1]) for one in measured),
        ]
        for name in present
    ]
    return [["mean over seeds ± 95 %", *header], *body]


def _measure(row: Json | None, digits: int) -> str:
    if row is None or row["mean"] is None:
        return ""
    text = f"{row['mean']:.{digits}f}"
    if row["low"] is not None and row["seeds"] > 1:
        half = max(row["mean"] - row["low"], row["high"] - row["mean"])
        text += f" ± {half:.{digits}f}"
    return text


def _again(found: Json) -> list[str]:
    """How to repeat it."""
    facts = found["environment"]
    packages = facts["packages"]
    wanted = [name for name in ("torch", "ray", "mujoco", "metaworld") if name in packages]
    versions = ", ".join(f"{name} {'/'.join(packages[name])}" for name in wanted)
    lines = ["", "to repeat it:", f"  {command_text(found['command'])}"]
    lines += _wrapped(f"code {', '.join(facts['code']) or 'unknown'}", "  ")
    lines += _wrapped(f"Python {', '.join(facts['python'])}; {versions}", "  ")
    return lines + _wrapped(f"on {', '.join(facts['hosts'])}", "  ")


def command_text(argv: Any) -> str:
    """As typed in a shell."""
    words = [str(word) for word in argv] if isinstance(argv, list) else []
    if words and words[0].endswith(("__main__.py", "/foundry")):
        words[0] = "foundry"
    return shlex.join(words) or "not recorded"


def _minute(time: Any) -> str:
    return str(time)[:16].replace("T", " ")


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def _table(rows: Iterable[Sequence[str]]) -> str:
    header, *body = rows
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in header:
        table.add_column(escape(column), overflow="fold")
    for row in body:
        table.add_row(*map(escape, row))
    out = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    out.print(table)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.rstrip() for line in text.splitlines()]
    return "\n".join([*filter(None, lines), ""])
