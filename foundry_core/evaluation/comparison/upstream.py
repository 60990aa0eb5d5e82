"""How good the models are that the compared policies were made from, beside their success.

Shown and never tested: what a measure of a model says of success, a table over runs shows
(`stage_quality` of the lineage).
"""

from collections.abc import Mapping
from dataclasses import replace

from foundry_core.evaluation.comparison.grids import Grid
from foundry_core.evaluation.comparison.result import Comparison
from foundry_core.evaluation.quality import Quality, interval_text

_HEADLINES = (
    *("acc", "acc_norm", "bits_per_byte", "loss", "exact", "token_f1", "vqa_accuracy"),
    *("placed", "pixel_error_px", "offset_error_cm"),
)
TITLE = "Models that the policies were made from"


def with_quality(comparison: Comparison, found: Mapping[str, Quality]) -> Comparison:
    """found: label of an exam → what it measured."""
    return replace(comparison, quality={label: one.measures for label, one in found.items()})


def quality_grids(comparison: Comparison) -> list[Grid]:
    """One table, or none: a row per exam, task and measure; the rest is in quality.json."""
    rows = [
        [label, one.task, one.name, interval_text(one)]
        for label, measures in comparison.quality.items()
        for one in measures
        if one.name in _HEADLINES and "/" not in one.task
    ]
    header = ["exam", "task", "measure", "value [95 %]"]
    return [Grid(title=TITLE, header=header, rows=rows)] if rows else []
