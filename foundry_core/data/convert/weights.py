"""How often the windows of an episode are drawn in training: from its data, and by rules."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import numpy as np

from foundry_core.data.config import WEIGHTS, WeightRule
from foundry_core.data.robot.episodes import Episode, UnusableEpisode

# (windows, their weight), one after the other.
WeightRuns = list[tuple[int, float]]


def step_weights(episode: Episode, source: str, rules: Sequence[WeightRule]) -> np.ndarray | None:
    """float64 [L]: for each step the weight of the window whose anchor it is, kept to two digits;
    None where neither the mapping nor a rule speaks of any. source: the name of its piece there.
    UnusableEpisode where one is not finite, or below 0."""
    if episode.weight is None and not rules:
        return None
    weight = np.ones(episode.length) if episode.weight is None else np.asarray(episode.weight)
    wrong = ~(np.isfinite(weight) & (weight >= 0))
    if wrong.any():
        raise UnusableEpisode(
            f"episode {episode.id!r} has the weight {weight[wrong][0]} at step "
            f"{int(np.argmax(wrong))}",
            "weights are finite and not negative",
        )
    factor = 1.0
    for rule in rules:
        factor *= rule.weight if applies(rule, episode, source) else 1.0
    found = _two_digits(weight * factor)
    beyond = (found > 0) & ((found < WEIGHTS[0]) | (found > WEIGHTS[1]))
    if beyond.any():
        raise UnusableEpisode(
            f"episode {episode.id!r} has the weight {found[beyond][0]:g} at step "
            f"{int(np.argmax(beyond))}, with the factors of the rules",
            f"weights are 0 or from {WEIGHTS[0]:g} to {WEIGHTS[1]:g}",
        )
    return found


def applies(rule: WeightRule, episode: Episode, source: str) -> bool:
    """Whether all that the rule says is so of the episode."""
    known = {True: "true", False: "false", None: "unknown"}[episode.success]
    seconds = episode.length / episode.hz
    return (
        (rule.success is None or rule.success == known)
        and (rule.task is None or fnmatchcase(episode.task, rule.task))
        and (rule.source is None or fnmatchcase(source, rule.source))
        and (rule.shorter_than_s is None or seconds < rule.shorter_than_s)
        and (rule.longer_than_s is None or seconds > rule.longer_than_s)
    )


def runs_of(weights: Iterable[float]) -> WeightRuns:
    """Equal neighbours together."""
    return joined_runs((1, float(weight)) for weight in weights)


def joined_runs(runs: Iterable[tuple[int, float]]) -> WeightRuns:
    """The same with neighbours of one weight together."""
    found: WeightRuns = []
    for count, weight in runs:
        if found and found[-1][1] == weight:
            found[-1] = (found[-1][0] + count, weight)
        elif count:
            found.append((count, weight))
    return found


def _two_digits(values: np.ndarray) -> np.ndarray:
    """To two significant digits: what is stored is runs of equal weights, and exact counts are of
    classes of them. In decimals, so that 0.9 stays what was written."""
    different, which = np.unique(values, return_inverse=True)
    return np.array([float(f"{value:.1e}") for value in different.tolist()])[which]
