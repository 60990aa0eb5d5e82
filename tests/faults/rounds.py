"""Fault rounds: kill a run at a random instant, check what it left, run again, compare.

    python -m tests.faults.rounds --rounds 200 --seed 0 [--pipeline words|real] [--store local|s3]

Rounds come in campaigns that share a home and a store, so that each crash meets the leftovers of
the ones before. Everything random is drawn from (seed, campaign, round), which is printed with each
kill: `--campaign N` plays one campaign again. Exits 1 when any invariant is violated.
"""

import argparse
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.campaign import Campaign, Tally
from tests.faults.pipelines import PIPELINES
from tests.faults.s3 import S3Store
from tests.faults.stores import LocalStore

STORES = {"local": LocalStore, "s3": S3Store}


def run_rounds(
    *,
    rounds: int,
    seed: int = 0,
    pipeline: str = "words",
    store: str = "local",
    campaign_rounds: int = 20,
    only: int | None = None,
    keep: bool = False,
    calm: Path | None = None,
) -> Tally:
    """All rounds; a round is one kill that found its run alive."""
    tally = Tally()
    campaigns = range((rounds + campaign_rounds - 1) // campaign_rounds)
    for number in campaigns if only is None else [only]:
        folder = Path(tempfile.mkdtemp(prefix=f"faults-{number}-"))
        left = min(campaign_rounds, rounds - number * campaign_rounds)
        with STORES[store](folder, f"{seed}/{number}") as under_test:
            campaign = Campaign(
                PIPELINES[pipeline], under_test, folder, tally, f"{seed}/{number}", calm
            )
            campaign.calibrate()
            turn = 0
            while left > 0 and turn < 10 * campaign_rounds:
                done = campaign.round(turn, left)
                tally.counts["rounds"] += done
                left, turn = left - done, turn + 1
            if left:
                tally.violations.append((f"{seed}/{number}", f"{left} kills met no living run"))
            tally.counts.update(under_test.summary())
        print(
            f"campaign {seed}/{number}: {tally.counts['rounds']} rounds so far,"
            f" {len(tally.violations)} violations",
            flush=True,
        )
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    return tally


def table(tally: Tally, seconds: float) -> str:
    rows = [*sorted(tally.counts.items())]
    rows += [(f"children killed or orphaned in {n}", c) for n, c in sorted(tally.stages.items())]
    rows += [("seconds", round(seconds)), ("**violations**", len(tally.violations))]
    return "\n".join(
        ["| what | how often |", "| --- | --- |", *(f"| {n} | {c} |" for n, c in rows)]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pipeline", choices=sorted(PIPELINES), default="words")
    parser.add_argument("--store", choices=sorted(STORES), default="local")
    parser.add_argument("--campaign-rounds", type=int, default=20)
    parser.add_argument("--campaign", type=int, help="play this one only")
    parser.add_argument("--calm", type=Path, help="the undisturbed home, to be used again")
    parser.add_argument("--keep", action="store_true", help="keep the folders")
    options = parser.parse_args()
    started = time.monotonic()
    tally = run_rounds(
        rounds=options.rounds,
        seed=options.seed,
        pipeline=options.pipeline,
        store=options.store,
        campaign_rounds=options.campaign_rounds,
        only=options.campaign,
        keep=options.keep,
        calm=options.calm,
    )
    print(
        f"\n{options.pipeline} on {options.store}, seed {options.seed},"
        f" {time.strftime('%Y-%m-%d')}, {platform.platform()}\n"
    )
    print(table(tally, time.monotonic() - started))
    for where, text in tally.violations:
        print(f"{where}: {text}")
    return 1 if tally.violations else 0


if __name__ == "__main__":
    sys.exit(main())
