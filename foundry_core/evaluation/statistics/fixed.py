"""Two-arm tests for a fixed number of episodes, decided once, after the last one.

Looking at the p-value after every episode and stopping when it is small voids every one of them;
`sequential` and `evalues` are for that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.intervals import check_counts

Alternative = Literal["two-sided", "greater", "less"]


@dataclass(frozen=True, kw_only=True)
class Arms:
    """Successes and episodes of the tested arm (1) and of the one it is held against (0)."""

    s1: int
    n1: int
    s0: int
    n0: int

    def __post_init__(self) -> None:
        check_counts(self.s1, self.n1)
        check_counts(self.s0, self.n0)


def barnard(arms: Arms, alternative: Alternative = "two-sided") -> float:
    """Exact unconditional p-value for two independent arms (Barnard 1945).

    "greater": arm 1 succeeds more often. Takes about 0.1 s at 200 episodes per arm.
    """
    if not arms.n1 or not arms.n0:
        return 1.0
    if arms.s1 + arms.s0 in (0, arms.n1 + arms.n0):
        return 1.0
    table = [[arms.s1, arms.s0], [arms.n1 - arms.s1, arms.n0 - arms.s0]]
    return float(min(1.0, stats.barnard_exact(table, alternative=alternative).pvalue))


def discordant(tested: Mapping[int, bool], base: Mapping[int, bool]) -> tuple[int, int]:
    """Over the scenarios both ran: (only `tested` succeeded, only `base` succeeded)."""
    common = tested.keys() & base.keys()
    wins = sum(tested[i] and not base[i] for i in common)
    losses = sum(base[i] and not tested[i] for i in common)
    return wins, losses


def mcnemar(wins: int, losses: int, alternative: Alternative = "two-sided") -> float:
    """Exact sign test on the discordant pairs (McNemar 1947): each is a fair coin under the null.

    The test of choice when both arms ran the same scenarios: easy and hard scenarios hit both
    alike, and what they share no longer blurs the difference.
    """
    if wins < 0 or losses < 0:
        raise FoundryError(f"{wins} wins and {losses} losses: counts cannot be negative")
    if not wins + losses:
        return 1.0
    return float(stats.binomtest(wins, wins + losses, 0.5, alternative=alternative).pvalue)


@dataclass(frozen=True, kw_only=True)
class StratifiedTest:
    """statistic: chi-square with one degree of freedom. odds_ratio: None where undefined."""

    statistic: float
    p: float
    odds_ratio: float | None


def cmh(strata: Sequence[Arms], *, continuity: bool = True) -> StratifiedTest:
    """Cochran-Mantel-Haenszel test of a common difference over strata (tasks).

    Compares within each task and adds up, so tasks of different difficulty or size do not feign
    or hide a difference as pooled counts may (Simpson). Asymptotic; two-sided.
    """
    difference = variance = numerator = denominator = 0.0
    for arms in strata:
        n = arms.n1 + arms.n0
        if not arms.n1 or not arms.n0:
            continue
        successes = arms.s1 + arms.s0
        difference += arms.s1 - arms.n1 * successes / n
        variance += arms.n1 * arms.n0 * successes * (n - successes) / (n * n * (n - 1))
        numerator += arms.s1 * (arms.n0 - arms.s0) / n
        denominator += arms.s0 * (arms.n1 - arms.s1) / n
    ratio = numerator / denominator if denominator else None
    if not variance:
        return StratifiedTest(statistic=0.0, p=1.0, odds_ratio=ratio)
    deviation = max(0.0, abs(difference) - (0.5 if continuity else 0.0))
    statistic = deviation**2 / variance
    return StratifiedTest(
        statistic=statistic, p=float(stats.chi2.sf(statistic, 1)), odds_ratio=ratio
    )
