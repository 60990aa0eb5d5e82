"""Result files of vla-evaluation-harness (PyPI `vla-eval`).

The form is that of its own writers, `results/collector.py` and `results/export.py` of release 0.8.0
(`<benchmark>_aggregate.json`), and of the files of version 0.0.4 that its repository publishes as
reproductions. They name no model: the folder that holds a file does. A task is called as the file
calls it, `episode_id` is the scenario (the benchmark's own index of an initial state), and
`config.episodes_per_task` the budget.

An episode that has a `failure_reason` (server_unreachable, connection_closed, timeout of an answer,
env_start, env_step, model_act, exception) did not end as an episode: 0.8.0 counts it as a failure,
0.0.4 leaves it out; here it is a crash, called by that reason. Episodes whose limit of steps ran
out have none. In its throughput mode the initial states repeat, so that episodes are no scenarios:
such a file is refused, as is a benchmark that counts no success.
"""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import BaseModel, BeforeValidator, Field, StrictBool

from foundry_core.errors import FoundryError
from foundry_core.evaluation.facts import EvaluationFacts
from foundry_core.evaluation.results.base import (
    Budget,
    Index,
    Name,
    ResultFile,
    ResultFormat,
    Seconds,
    check_size,
    read_document,
)
from foundry_core.evaluation.score import EpisodeResult
from foundry_core.files import read_json, walk

_SUFFIX = "_aggregate.json"
_FORM = (
    "a result file of vla-eval has `benchmark`, `harness_version` and `tasks`, each with `episodes`"
)
_KEYS = {"benchmark", "harness_version", "tasks"}
_NUMBERED = re.compile(r"(?:.*_ep)?(\d{1,18})", re.DOTALL)


def _index(value: Any) -> Any:
    """0.0.4 wrote `<task>_ep<n>`."""
    found = _NUMBERED.fullmatch(value) if isinstance(value, str) else None
    return int(found[1]) if found else value


def _outcome(value: Any) -> Any:
    """A benchmark may write its outcome as a number."""
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else value


Success = Annotated[StrictBool, BeforeValidator(_outcome)]


class _Metrics(BaseModel):
    success: Success | None = None


class _Episode(BaseModel):
    episode_id: Annotated[Index, BeforeValidator(_index)]
    metrics: _Metrics = Field(default_factory=_Metrics)
    success: Success | None = None
    steps: Index | None = None
    elapsed_sec: Seconds | None = None
    failure_reason: Name | None = None
    failure_detail: str | None = None


class _Task(BaseModel):
    task: Name
    episodes: list[_Episode]


class _Config(BaseModel):
    episodes_per_task: Budget | None = None
    max_steps: Index | None = None
    mode: str = "sync"
    hz: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    throughput_mode: bool = False
    params: dict[str, Any] = Field(default_factory=dict)


class _Document(BaseModel):
    benchmark: Name
    harness_version: Name
    tasks: list[_Task]
    config: _Config = Field(default_factory=_Config)


def _find(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if _is_one(root) else []
    names = (name for name, _ in walk(root)) if root.is_dir() else ()
    return sorted(root / name for name in names if name.endswith(".json") and _is_one(root / name))


def _is_one(path: Path) -> bool:
    """By its keys; one that is called as vla-eval calls them counts even if it is damaged."""
    if path.name.endswith(_SUFFIX):
        return True
    try:
        check_size(path)
        document = read_json(path)
    except (FoundryError, OSError, RecursionError, ValueError):
        return False
    return isinstance(document, dict) and document.keys() >= _KEYS


def _read(root: Path, files: Sequence[Path]) -> Iterator[ResultFile]:
    folder = root if root.is_dir() else root.parent
    for path in files:
        document = read_document(_Document, path, _FORM)
        if document.config.throughput_mode:
            raise FoundryError(
                f"{path} is of vla-eval's throughput mode, in which initial states repeat",
                "evaluate with throughput_mode: false",
            )
        inside = path.parent.relative_to(folder)
        episodes = [
            _result(path, task.task, one) for task in document.tasks for one in task.episodes
        ]
        if not episodes:
            raise FoundryError(f"{path} has no episodes", _FORM)
        largest = max(len(task.episodes) for task in document.tasks)
        yield ResultFile(
            path=path,
            model=inside.as_posix() if inside.parts else folder.resolve().name,
            budget=document.config.episodes_per_task or largest,
            episodes=episodes,
            facts=_facts(document),
        )


def _result(path: Path, task: str, episode: _Episode) -> EpisodeResult:
    success = episode.success if episode.metrics.success is None else episode.metrics.success
    if episode.failure_reason is None and success is None:
        _refuse(path, task, episode)
    crashed = episode.failure_reason is not None
    return EpisodeResult(
        task=task,
        scenario=episode.episode_id,
        success=None if crashed else success,
        seconds=episode.elapsed_sec or 0.0,
        steps=episode.steps,
        failure_message=_message(episode) if crashed else None,
        recorded_as_failure=crashed,
    )


def _refuse(path: Path, task: str, episode: _Episode) -> NoReturn:
    raise FoundryError(
        f"{path}: {task}, episode {episode.episode_id} has no success, true or false",
        "only benchmarks that count successes can be compared",
    )


def _message(episode: _Episode) -> str:
    """The detail, its last line named by the reason: there crashes are told apart."""
    *lines, last = (episode.failure_detail or "").strip().splitlines() or [""]
    return "\n".join([*lines, f"{episode.failure_reason}: {last.strip()}"])


def _facts(document: _Document) -> EvaluationFacts:
    config = document.config
    return EvaluationFacts(
        benchmark=document.benchmark,
        options={name: one for name, one in config.params.items() if _plain(name) and _plain(one)},
        packages={"vla-eval": document.harness_version},
        hz=config.hz if config.mode.startswith("live") else None,
        max_steps={task.task: config.max_steps for task in document.tasks if config.max_steps},
    )


def _plain(value: Any) -> bool:
    """Nested settings stay in the file."""
    if isinstance(value, str):
        return len(value) <= 500 and value.isprintable()
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


RESULTS = ResultFormat(form=f"vla-eval's <model>/<benchmark>{_SUFFIX}", find=_find, read=_read)
