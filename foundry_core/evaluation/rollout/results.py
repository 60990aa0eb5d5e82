"""What became of an episode, and how many of them make a score.

An episode is one of four things: success, failure, pending (not run yet) or crashed (a fault of the
simulator or of the machine). Only the first two say anything about the policy.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from foundry_core.errors import FoundryError
from foundry_core.evaluation.score import Score


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One episode of one policy.

    success: None while pending and after a crash. seconds: simulated time. recorded_as_failure:
    the file called this crash a failure of the policy.
    """

    task: str
    scenario: int
    success: bool | None
    pending: bool = False
    seconds: float = 0.0
    steps: int | None = None
    failure_message: str | None = None
    seed: int | None = None
    recorded_as_failure: bool = False

    def __post_init__(self) -> None:
        if self.pending and self.success is not None:
            raise FoundryError(
                f"{self.task}, scenario {self.scenario}: pending and success={self.success}",
                "a pending episode has no outcome yet",
            )

    @property
    def key(self) -> tuple[str, int]:
        return self.task, self.scenario

    @property
    def crashed(self) -> bool:
        return self.success is None and not self.pending

    @property
    def status(self) -> str:
        if self.pending:
            return "pending"
        if self.success is None:
            return "crashed"
        return "success" if self.success else "failure"


def score_of(episodes: Sequence[EpisodeResult]) -> Score:
    """The score of any episodes; those not run yet are pending, crashes are no outcome."""
    return Score(
        n=sum(e.success is not None for e in episodes),
        successes=sum(bool(e.success) for e in episodes),
        crashed=sum(e.crashed for e in episodes),
        pending=sum(e.pending for e in episodes),
    )


def scores_by_task(episodes: Iterable[EpisodeResult]) -> dict[str, Score]:
    """task → score, in the order in which the tasks come."""
    by_task: dict[str, list[EpisodeResult]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task, []).append(episode)
    return {task: score_of(of_task) for task, of_task in by_task.items()}
