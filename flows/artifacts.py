"""A run's page in Prefect's UI: the plan, losses, rollouts, the verdict, the report.

Only where a server is configured: an ephemeral one is gone before anybody could look. A server that
does not answer costs the display, never the run.
"""

import base64
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flows.settings  # noqa: F401  (Prefect reads its settings once, on import)

# isort: split
import httpx
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
)
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from flows.engine import PipelineRun
from foundry_core.store.artifact import Artifact

_LOG = logging.getLogger(__name__)
_LARGEST_IMAGE = 512 * 1024


def configured() -> bool:
    """Whether there is a server that outlives this process."""
    return bool(PREFECT_API_URL.value())


def show_plan(markdown: str) -> None:
    """What will run and why, before anything does."""
    _publish(create_markdown_artifact, markdown=markdown, key="plan", description="Plan")


def show_stage(run: PipelineRun, name: str) -> None:
    """What a finished stage has to show, by its kind. Called in the stage's own task."""
    if not configured():
        return
    artifact = run.artifact(name)
    folder = run.prepared.store.files_path(artifact)
    if run.prepared.pipeline.stages[name].stage.trains:
        _show_losses(name, folder)
    elif artifact.kind == "evaluate":
        _show_rollouts(name, artifact, folder)
    elif artifact.kind in ("compare", "verdict"):
        _show_comparison(name, folder)


def show_effects(effects: Sequence[Mapping[str, Any]], seeds: Mapping[str, Any] | None) -> None:
    """The verdict of an ablation, a row per variant."""
    from flows.ablation_report import effects_rows, seeds_text

    text = markdown_table(effects_rows(effects))
    text += f"\n{seeds_text(seeds)}\n" if seeds else "\nNo verdict: see the runs that failed.\n"
    _publish(create_markdown_artifact, markdown=text, key="verdict", description="Verdict")


def show_report(path: Path) -> None:
    """Where report.html lies; the path stands beside the link, since browsers follow file links
    from a web page only after copying them into the address bar."""
    _publish(
        create_link_artifact,
        link=path.absolute().as_uri(),
        link_text=str(path),
        key="report",
        description=f"Report: {path}",
    )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = rows
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(cell.replace('|', '¦') for cell in row)} |\n" for row in lines)


def on_white(svg: str) -> bytes:
    """A picture alone cannot follow the page's colours: dark letters need light behind them."""
    return svg.replace(
        "</title>", '</title><rect width="100%" height="100%" fill="#fff"/>', 1
    ).encode()


def _show_losses(name: str, folder: Path) -> None:
    from flows.reporting import loss_series
    from foundry_core.evaluation.plots import curves

    series = loss_series(folder)
    if series:
        picture = on_white(curves(name, series))
        _show_image(f"loss-{name}", "svg+xml", picture, f"Losses of {name}")


def _show_rollouts(name: str, artifact: Artifact, folder: Path) -> None:
    """The first recorded episode of every task, as in the report."""
    for task in sorted(path for path in (folder / "frames").glob("*") if path.is_dir()):
        first = next(iter(sorted(task.glob("*.png"))), None)
        if first is not None:
            outcome = first.stem.partition("_")[2]
            text = f"{name}, {task.name}: {outcome}; success over all tasks " + _rate(artifact)
            _show_image(f"rollout-{name}-{task.name}", "png", first.read_bytes(), text)


def _rate(artifact: Artifact) -> str:
    values = artifact.metrics
    return f"{values.get('successes', '?')} of {values.get('n', '?')}"


def _show_comparison(name: str, folder: Path) -> None:
    from foundry_core.evaluation.compare import markdown
    from foundry_core.evaluation.report import verdict

    found = json.loads((folder / "comparison.json").read_text())
    text = f"{markdown(found)}\n{verdict(found)}\n"
    _publish(
        create_markdown_artifact, markdown=text, key=f"results-{_slug(name)}", description=name
    )
    picture = on_white((folder / "success.svg").read_text())
    _show_image(f"success-{name}", "svg+xml", picture, f"Success: {name}")


def _show_image(key: str, kind: str, data: bytes, description: str) -> None:
    """As a data URI: the server keeps it, and a browser elsewhere needs no path to this disk."""
    if len(data) > _LARGEST_IMAGE:
        _LOG.warning("%s: a picture of %d bytes is not sent to the server", key, len(data))
        return
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    _publish(create_image_artifact, image_url=uri, key=_slug(key), description=description)


def _slug(text: str) -> str:
    """Keys of artifacts are lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _publish(create: Callable[..., Any], **content: Any) -> None:
    if not configured():
        return
    try:
        create(**content)
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        _LOG.warning("%s is not shown: %s", content["key"], error)
