"""What settings do to success, as a table and as a picture."""

from typing import Any

from foundry_core.evaluation.comparison.drawing import Picture, percents
from foundry_core.evaluation.comparison.grids import Grid
from foundry_core.evaluation.comparison.p_values import p_text
from foundry_core.evaluation.comparison.result import Comparison, Dose
from foundry_core.evaluation.comparison.sentences import contrast_claim

TITLE = "Effects of the settings"
_NOTE = (
    "In points of success. A main effect is a mean over all combinations of the other settings; an "
    "interaction is what two settings do together beyond the sum of what each does; a trend is the "
    "rise of a straight line from the lowest value to the highest, values in equal steps."
)


def effect_grids(comparison: Comparison) -> list[Grid]:
    """One table, or none: a row per main effect, interaction and trend."""
    if not comparison.contrasts:
        return []
    rows = [
        [
            one.text,
            one.kind,
            f"{100 * one.estimate:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]",
            "" if one.p_corrected is None else p_text(one.p_corrected),
            "" if one.p_permutation is None else p_text(one.p_permutation),
            contrast_claim(one).partition(" (p ")[0],
        ]
        for one in comparison.contrasts
    ]
    header = ["setting", "", "points [95 %]", "p (Holm)", "p (runs permuted)", "decision"]
    listed = any(one.p_permutation is not None for one in comparison.contrasts)
    if not listed:
        header, *rows = ([*row[:4], row[5]] for row in (header, *rows))
    tests = ", ".join(sorted({one.test for one in comparison.contrasts}))
    notes = [
        _NOTE,
        f"One family of {len(comparison.contrasts)}, corrected by Holm. Tests: {tests}.",
    ]
    if listed:
        notes.append(
            "p (runs permuted) is beside the test: the share of all ways to deal the runs to the "
            "values that give as strong a trend."
        )
    return [Grid(title=TITLE, header=header, rows=rows, notes=notes)]


def dose_picture(dose: Dose) -> Picture:
    """Success over a setting's values with intervals, every run as a dot, the straight line with
    its band. Equal steps between values: settings are varied by factors as often as by sums."""
    title = f"Success over {dose.path}"

    def draw(figure: Any) -> None:
        axes, places = figure.subplots(), range(len(dose.points))
        line = [point.line for point in dose.points]
        band = [point.line_low for point in dose.points], [point.line_high for point in dose.points]
        axes.fill_between(places, *band, color="C0", alpha=0.15, linewidth=0)
        axes.plot(places, line, color="C0", linestyle="--", linewidth=1)
        for place, point in zip(places, dose.points, strict=True):
            axes.vlines(place, point.low, point.high, color="C0", linewidth=1.5)
            if len(point.seeds) > 1:
                axes.scatter([place + 0.08] * len(point.seeds), point.seeds, s=14, color="C1")
        axes.plot(places, [point.rate for point in dose.points], "o", color="C0")
        axes.set_xticks(places, [f"{point.value:g}" for point in dose.points])
        axes.set_xlim(-0.5, len(dose.points) - 0.5)
        axes.set_xlabel(dose.path)
        percents(axes.yaxis, axes.set_ylim)

    return Picture(title, 75 + 110 * len(dose.points), 255, draw)
