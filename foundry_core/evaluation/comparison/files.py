"""The files of an artifact of type Comparison, written alike by every stage that makes one."""

from pathlib import Path
from typing import Any

from foundry_core.evaluation.comparison.plots import success_bars
from foundry_core.evaluation.comparison.result import FILE, Comparison
from foundry_core.evaluation.comparison.tables import markdown
from foundry_core.files import write_json


def write_comparison(out: Path, comparison: Comparison) -> dict[str, Any]:
    """comparison.json, table.md and success.svg; returns the stage's metrics: success_<label>,
    n_<label>, p_<label> (corrected), and of an ablation design_effect and seed_deviation."""
    write_json(out / FILE, comparison.to_json())
    (out / "table.md").write_text(markdown(comparison), encoding="utf-8")
    (out / "success.svg").write_text(success_bars(comparison), encoding="utf-8")
    metrics: dict[str, Any] = {}
    for label, score in comparison.pooled.items():
        metrics |= {f"success_{label}": score.counted.rate, f"n_{label}": score.counted.n}
    for label, difference in comparison.against_base.items():
        metrics[f"p_{label}"] = difference.p_corrected
    if comparison.seeds is not None:
        metrics["design_effect"] = comparison.seeds.design_effect
        if comparison.seeds.deviation is not None:
            metrics["seed_deviation"] = comparison.seeds.deviation
    return metrics
