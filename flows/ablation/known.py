"""The report of an ablation that has just ended: one that is known, or a new one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_core.home import home_dir
from foundry_core.lineage import queries
from foundry_core.lineage.connection import rows


def report_of(result: Mapping[str, Any]) -> Path:
    """The report of an ablation that has just ended, with this result. Of one that built nothing
    it is the one that came to the same verdict: drawing a page takes longer than finding that all
    is known."""
    built = any(stage["attempt"] for stage in result["stages"])
    known = None if built else known_report(result["comparison_key"])
    if known is not None:
        return known
    from flows.ablation.report import write_ablation_report

    return write_ablation_report(result["ablation_id"])


def known_report(comparison_key: str | None) -> Path | None:
    """The report of an ablation that came to the same verdict, the newest; None without one."""
    query = "select ablation_id from ablation where comparison_key = ? order by started_at desc"
    with queries.connect() as connection:
        known = rows(connection, query, [comparison_key], of=dict[str, Any])
    paths = (home_dir() / "runs" / row["ablation_id"] / "report.html" for row in known)
    return next(filter(Path.is_file, paths), None)
