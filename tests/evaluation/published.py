"""Small results as LBM Eval and vla-eval write them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_core.evaluation.results.lbm import write_results
from foundry_core.evaluation.score import EpisodeResult

FAULT = "Traceback (most recent call last):\n  x\nOSError: [Errno 28] No space left on device"


def lbm_tree(
    root: Path, models: Mapping[str, int], *, tasks: tuple[str, ...] = ("add", "sort"), n: int = 40
) -> Path:
    """Of n scenarios per task the first so many succeed; the last one crashes."""
    for model, successes in models.items():
        episodes = [
            EpisodeResult(
                task=task,
                scenario=scenario,
                success=None if scenario == n - 1 else scenario < successes,
                seconds=1.5,
                failure_message=FAULT if scenario == n - 1 else None,
            )
            for task in tasks
            for scenario in range(n)
        ]
        write_results(root, model, episodes, requested=n, budget=n)
    return root


def vla_episode(number: int, success: bool = True, **fields: Any) -> dict[str, Any]:
    return {
        "episode_id": number,
        "metrics": {"success": success},
        "steps": 70,
        "elapsed_sec": 3.5,
        **fields,
    }


def vla_document(tasks: Mapping[str, list[dict[str, Any]]], **fields: Any) -> dict[str, Any]:
    return {
        "benchmark": "LIBEROBenchmark_libero_spatial",
        "mode": "sync",
        "harness_version": "0.8.0",
        "created_at": "2026-09-01T00:00:00+00:00",
        "tasks": [{"task": name, "episodes": some} for name, some in tasks.items()],
        "config": {"episodes_per_task": 4, "params": {"suite": "libero_spatial", "seed": 7}},
        **fields,
    }


def put_vla(folder: Path, document: Any, name: str = "LIBERO_aggregate.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return folder / name
