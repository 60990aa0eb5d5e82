"""LIBERO's control step as shipped and as `fast_step` has it: states compared, CPU time in turn.

    OMP_NUM_THREADS=1 python benchmarks/libero_step.py [--starts 2] [--tasks 3]

Episodes of the scripted expert where there is one, of other suites 150 steps of drawn actions that
reach for the table. Actions are made once, with the shipped step, and then carried out both ways.
Needs the extra `libero`.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from foundry_core.errors import FoundryError
from foundry_core.simulation.experts.libero import LiberoExpert
from foundry_core.simulation.libero import catalog
from foundry_core.simulation.libero.config import LiberoScene
from foundry_core.simulation.libero.simulator import LiberoSimulator

_DRAWN_STEPS, _EXPERT_STEPS = 150, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=3)
    given = parser.parse_args()
    print("suite | task | steps | largest difference | shipped ms | fast ms")
    for suite in catalog.MAX_STEPS:
        names = sorted(catalog.tasks(suite, None))
        stride = max(1, len(names) // given.tasks)
        for task in names[::stride][: given.tasks]:
            _compare(suite, task, given.starts)


def _compare(suite: str, task: str, starts: int) -> None:
    shipped = LiberoSimulator(task, LiberoScene(suite=suite))
    fast = LiberoSimulator(task, LiberoScene(suite=suite, fast_step=True))
    scripted = _has_expert(suite, task)
    worst, steps, spent = 0.0, 0, [0.0, 0.0]
    for start in range(starts):
        actions = _expert(shipped, start) if scripted else _drawn(start)
        states = [one.reset(start) or [one.state()] for one in (shipped, fast)]
        for action in actions:  # in turn, so that a busy machine slows both alike
            for at, simulator in enumerate((shipped, fast)):
                before = time.process_time()
                simulator.act(action)
                spent[at] += time.process_time() - before
                states[at].append(simulator.state())
        worst = max(worst, float(np.abs(np.array(states[0]) - np.array(states[1])).max()))
        steps += len(actions)
    how = "expert" if scripted else "drawn"
    ms = " | ".join(f"{1e3 * seconds / steps:.1f}" for seconds in spent)
    print(f"{suite} | {task[:60]} ({how}) | {steps} | {worst:g} | {ms}", flush=True)
    shipped.close()
    fast.close()


def _has_expert(suite: str, task: str) -> bool:
    try:
        LiberoExpert(scene=LiberoScene(suite=suite)).check_tasks([task])
    except FoundryError:
        return False
    return True


def _expert(simulator: LiberoSimulator, start: int) -> list[np.ndarray]:
    from foundry_core.simulation.libero.expert import Expert

    simulator.reset(start)
    expert, actions = Expert(simulator), []
    while not simulator.success and simulator.steps < _EXPERT_STEPS:
        actions.append(expert.action())
        simulator.act(actions[-1])
    return actions


def _drawn(start: int) -> list[np.ndarray]:
    """Downwards and about, a hand that opens and closes: contacts of every kind."""
    rng = np.random.default_rng(start)
    actions = []
    for step in range(_DRAWN_STEPS):
        if step % 15 == 0:
            aim = np.concatenate([rng.uniform(-1, 1, 2), rng.uniform(-1, 0.4, 1)])
            turn, hand = rng.uniform(-0.3, 0.3, 3), rng.choice([-1.0, 1.0])
        noise = rng.uniform(-0.3, 0.3, 3)
        actions.append(np.concatenate([aim + noise, turn, [hand]]))
    return actions


if __name__ == "__main__":
    main()
