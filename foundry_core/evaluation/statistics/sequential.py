"""Exact group-sequential test of two success rates with a budget fixed in advance.

Pairs of episodes (one per arm) come in; after each look the pair of counts (x, y) is looked up in
a table: separated, or go on. The table is designed by exact recursion over all paths (Jennison &
Turnbull 2000) under an error-spending schedule (Lan & DeMets 1983), its rejection regions grown
as in Barnard's construction (1945). Two-sided: two identical policies are separated, in either
direction and at any look, with probability at most alpha IN TOTAL, at every common rate.

Notation: n pairs so far, x successes of one arm, y of the other, p a common rate.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, gammaln, logit, xlog1py, xlogy

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.spending import Spending, spent

NULL_POINTS = 129
CERTIFY_POINTS = 801
FULL_LOOKS = 500
MAX_PAIRS = 4000


@dataclass(frozen=True, kw_only=True)
class SequentialDesign:
    """What must be fixed before the first episode.

    n_max: pairs at most. alpha: total over both directions, or of each with two_sided=False.
    spending: O'Brien and Fleming's by default: rates .5 and .7 are told apart with power .80 within
    100 pairs, against .75 by even spending, which on the other hand stops a clear case sooner.
    look_every: pairs between looks; 0 means after each up to 500 pairs and 500 looks beyond.
    """

    n_max: int
    alpha: float = 0.05
    spending: Spending = "obrien-fleming"
    two_sided: bool = True
    look_every: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n_max <= MAX_PAIRS:
            raise FoundryError(f"n_max is {self.n_max} pairs, must be between 1 and {MAX_PAIRS}")
        if not 0 < self.alpha < 1:
            raise FoundryError(f"alpha {self.alpha} must lie strictly between 0 and 1")
        if self.look_every < 0:
            raise FoundryError(f"look_every is {self.look_every}, must be 0 or more pairs")

    @property
    def looks(self) -> list[int]:
        every = self.look_every or -(-self.n_max // FULL_LOOKS)
        return [*range(every, self.n_max, every), self.n_max]

    @property
    def per_direction(self) -> float:
        return self.alpha / 2 if self.two_sided else self.alpha

    def spent(self, n: int) -> float:
        """Share of the error budget that may be used up to pair n: 0 … 1."""
        return spent(self.spending, n / self.n_max, self.alpha)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A designed test. Direction "up" is y > x; the other one mirrors it.

    critical: int16 [n_max + 1, n_max + 1], smallest y that rejects at (n, x); beyond n: never.
    cells: the reachable rejecting (n, x, y), int32 [c, 3], with `share` [c], the chance that a
        path through the cell was still undecided. Enough for the exact power at any two rates.
    error: largest type-I error of one direction over the certification grid.
    """

    design: SequentialDesign
    critical: np.ndarray
    cells: np.ndarray
    share: np.ndarray
    error: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """direction: 1 the tested arm is better, -1 worse, 0 not separated. pairs: used to decide."""

    direction: int
    pairs: int


def build_table(design: SequentialDesign) -> Table:
    """Designs and certifies the table: 2 s for 200 pairs, half a minute for 500."""
    scale = 1.0
    while True:
        critical, cells, share = _grow(design, design.per_direction * scale)
        edge = 1e-3 / design.n_max
        error = float(_risk(cells, share, _logit_grid(edge, CERTIFY_POINTS)).max())
        if error <= design.per_direction:
            return Table(design=design, critical=critical, cells=cells, share=share, error=error)
        scale *= 0.9995 * design.per_direction / error


def decide(table: Table, base: Sequence[bool], tested: Sequence[bool]) -> Decision:
    """Walks the pairs in order and stops at the first look that separates."""
    if len(base) != len(tested):
        raise FoundryError(f"pairs need equally many outcomes, got {len(base)} and {len(tested)}")
    if len(base) > table.design.n_max:
        raise FoundryError(
            f"{len(base)} pairs, the test was planned for at most {table.design.n_max}",
            "plan a new comparison with new episodes; an old budget cannot be extended",
        )
    x, y = np.cumsum(np.asarray(base, int)), np.cumsum(np.asarray(tested, int))
    for n in (n for n in table.design.looks if n <= len(base)):
        a, b = int(x[n - 1]), int(y[n - 1])
        if b >= table.critical[n, a]:
            return Decision(direction=1, pairs=n)
        if a >= table.critical[n, b]:
            return Decision(direction=-1, pairs=n)
    return Decision(direction=0, pairs=len(base))


def stopping(table: Table, p_base: float, p_tested: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact P(stop at pair n for "better"), P(… "worse"), each [n_max + 1], at two true rates."""
    n, x, y = table.cells.T
    up, down = np.zeros(table.design.n_max + 1), np.zeros(table.design.n_max + 1)
    np.add.at(up, n, _mass(n, x, p_base) * _mass(n, y, p_tested) * table.share)
    np.add.at(down, n, _mass(n, y, p_base) * _mass(n, x, p_tested) * table.share)
    return up, down


def _mass(n: np.ndarray, k: np.ndarray, p: float | np.ndarray) -> np.ndarray:
    """Binomial probabilities, by logarithms: exact enough to thousands of pairs."""
    choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.exp(choose + xlogy(k, p) + xlog1py(n - k, -p))


def _logit_grid(edge: float, points: int) -> np.ndarray:
    return expit(np.linspace(logit(edge), -logit(edge), points))


def _one_pair_later(share: np.ndarray, n: int) -> np.ndarray:
    """[n, n] → [n + 1, n + 1]: undecided share of the paths through each (x, y), one pair later.

    A path to x of n came from x-1 in x/n of the orders. Shares do not depend on p, so one array
    serves all grid points, and nothing overflows.
    """
    gained = np.arange(n + 1) / n
    rows = np.zeros((n, n + 1))
    rows[:, 1:] = share * gained[1:]
    rows[:, :-1] += share * (1 - gained[:-1])
    out = np.zeros((n + 1, n + 1))
    out[1:] = rows * gained[1:, None]
    out[:-1] += rows * (1 - gained[:-1])[:, None]
    return out


def _grow(design: SequentialDesign, budget: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Critical values and rejecting cells with at most `budget` error per direction."""
    grid = _logit_grid(1 / (2 * design.n_max), NULL_POINTS)
    size = design.n_max + 1
    critical = np.full((size, size), size + 1, dtype=np.int16)
    used = np.zeros(len(grid))
    share = np.ones((1, 1))
    looks, cells, shares = set(design.looks), [], []
    for n in range(1, size):
        share = _one_pair_later(share, n)
        if n not in looks:
            continue
        pmf = _mass(np.array(n), np.arange(n + 1)[None], grid[:, None])
        edge, used = _grow_look(share, pmf, used, budget * design.spent(n))
        critical[n, : n + 1] = edge
        rejected = np.arange(n + 1)[None] >= edge[:, None]
        x, y = np.nonzero(rejected & (share > 0))
        cells.append(np.stack([np.full(len(x), n), x, y], axis=1))
        shares.append(share[x, y])
        share[rejected | rejected.T] = 0.0
    return critical, np.concatenate(cells).astype(np.int32), np.concatenate(shares)


def _grow_look(
    share: np.ndarray, pmf: np.ndarray, used: np.ndarray, allowed: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rejection edge [n + 1] of one look and the error used after it, per null rate.

    Cells are tried by descending pooled z. A cell enters together with its mirror (n-y, n-x)
    (failures for successes), only after (x, y+1) and (x-1, y), and only if the error stays
    allowed at every rate; a refused cell is skipped. Only t = x + y <= n is walked: the other
    half is the mirror image.
    """
    n = len(share) - 1
    edge = _free_edge(share)
    queue: list[tuple[float, int, int]] = []
    queued: set[tuple[int, int]] = set()

    def offer(x: int, y: int) -> None:
        if x + y > n:
            x, y = n - y, n - x
        open_to = y > x >= 0 and edge[x] == y + 1 and (x == 0 or edge[x - 1] <= y)
        if open_to and (x, y) not in queued:
            queued.add((x, y))
            total = x + y
            heapq.heappush(queue, ((x - y) / np.sqrt(total * (2 * n - total)), x, y))

    for x in range(n // 2 + 1):
        offer(x, int(edge[x]) - 1)
    while queue:
        _, x, y = heapq.heappop(queue)
        cost = pmf[:, x] * pmf[:, y] * share[x, y]
        if x + y < n:
            cost = cost + pmf[:, n - y] * pmf[:, n - x] * share[n - y, n - x]
        if (used + cost > allowed).any():
            continue
        used = used + cost
        edge[x] = y
        edge[n - y] = n - x
        for a, b in ((x, y), (n - y, n - x)):
            offer(a, b - 1)
            offer(a + 1, b)
    return edge, used


def _free_edge(share: np.ndarray) -> np.ndarray:
    """Edge of the cells above the diagonal that no undecided path reaches: they cost nothing."""
    n = len(share) - 1
    reachable = share > 0
    last = np.where(reachable.any(axis=1), n - reachable[:, ::-1].argmax(axis=1), -1)
    return np.maximum.accumulate(np.maximum(last + 1, np.arange(n + 1) + 1))


def _risk(cells: np.ndarray, share: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Type-I error of one direction at each common rate."""
    n, x, y = cells.T
    total, pairs = x + y, 2 * n
    log_paths = 2 * gammaln(n + 1) + np.log(share)
    for k in (x, n - x, y, n - y):
        log_paths -= gammaln(k + 1)
    risk = [np.exp(log_paths + total * np.log(p) + (pairs - total) * np.log1p(-p)) for p in rates]
    return np.array([r.sum() for r in risk])
