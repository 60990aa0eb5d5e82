"""What validation measures, in words and units. No torch: reports and the console import it."""

from collections.abc import Iterable, Mapping
from typing import Any

RAW, EMA, MEAN, HOLD = "raw", "ema", "mean", "hold"
"""Whose measure it is, the first part of a name: of the weights as they are, of their average, of
the training set's mean action, of holding what is measured."""
FINAL = "final_validation/"
"""Before the names of the last measures, among a training's metrics."""
BASELINES = {MEAN: "mean action", HOLD: "holding still"}
NEAREST = "best_"
"""Before a measure: of the nearest of several chunks."""
STROKE, RANGE = "stroke", "range"
_ENDS = {
    STROKE: "share of its stroke",
    RANGE: "share of its range in the data",
    "": "share of its stroke, or range",
}
_WORDS = {
    "position_mm": ("position", "mm"),
    "rotation_deg": ("rotation", "degrees"),
    "joints_deg": ("joints", "degrees"),
    "gripper": ("gripper", ""),
    "other": ("other fields", "normalised units"),
    "exact": ("word for word", "share"),
}
_LOSSES = {"text": "nats per token", "captions": "nats per token"}


def in_words(modality: str, measure: str, gripper: str = "") -> tuple[str, str]:
    """(what is measured, its unit, "" where it has none). gripper: STROKE or RANGE, which its error
    is a share of; "" where that is not known."""
    if measure == "loss":
        return "loss", _LOSSES.get(modality, "")
    words, unit = _WORDS.get(measure, (measure, ""))
    return words, _ENDS[gripper] if measure == "gripper" else unit


def title(modality: str, measure: str, gripper: str = "") -> str:
    """`robot position, mm`."""
    words, unit = in_words(modality, measure, gripper)
    return ", ".join(filter(None, (f"{modality} {words}", unit)))


def number(value: float) -> str:
    """Four digits, as tables and sentences show a measure."""
    return f"{value:.4g}"


def overall(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """(whose, modality, measure) of the names that are of a whole modality: neither of one dataset
    nor of one step of a chunk."""
    parts = [name.split("/") for name in names]
    return [(one[0], one[1], one[2]) for one in parts if len(one) == 3 and not one[2].isdigit()]


def last_measures(metrics: Mapping[str, Any], stage: str = "") -> dict[str, float]:
    """<whose>/<modality>/<measure> → value, of a training's metrics; stage: of those of a run. What
    a manifest says there that is no number is left out."""
    prefix = f"{stage}.{FINAL}" if stage else FINAL
    return {
        name.removeprefix(prefix): value
        for name, value in metrics.items()
        if name.startswith(prefix) and is_number(value)
    }


def is_number(value: Any) -> bool:
    """Whether a value from a record can be shown as a measure."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def sentences(measures: Mapping[str, float], gripper: str = "") -> list[str]:
    """`robot position 568 mm (mean action 571)`: what the weights that are left, the average where
    there is one, measure beside what needs no training. measures: by <whose>/<modality>/<measure>.
    """
    found = overall(measures)
    left = EMA if any(whose == EMA for whose, *_ in found) else RAW
    said = []
    for whose, modality, measure in found:
        if whose != left or measure.startswith(NEAREST):
            continue
        words, unit = in_words(modality, measure, gripper)
        held = [
            f"{of} {number(measures[name])}"
            for one, of in BASELINES.items()
            if (name := f"{one}/{modality}/{measure}") in measures
        ]
        value = " ".join(filter(None, (number(measures[f"{whose}/{modality}/{measure}"]), unit)))
        said.append(f"{modality} {words} {value}" + (f" ({', '.join(held)})" if held else ""))
    return said
