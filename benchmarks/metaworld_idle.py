"""What Meta-World's 50 tasks give away: a table of how often doing nothing solves each, and of how
often its scripted expert does, over the same scenarios.

    python benchmarks/metaworld_idle.py [--episodes 25]
"""

import argparse

from foundry_core.evaluation.benchmarks.base import load_benchmark
from foundry_core.evaluation.rollout.controls import Control
from foundry_core.evaluation.rollout.episodes import plan_episodes, run_episodes
from foundry_core.simulation.catalog import TASKS
from foundry_core.simulation.config import RenderConfig
from foundry_core.simulation.simulator import Simulator


def expert_successes(task: str, episodes: int) -> int:
    simulator, solved = Simulator(task, RenderConfig()), 0
    for scenario in range(episodes):
        simulator.reset(scenario)
        while not simulator.success and simulator.steps < TASKS[task].max_steps:
            simulator.command(*simulator.expert_target())
        solved += simulator.success
    simulator.close()
    return solved


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--episodes", type=int, default=25)
    parser.add_argument("--no-experts", action="store_true")
    arguments = parser.parse_args()
    benchmark = load_benchmark("metaworld", {"task_set": "mt50"})
    print("| task | still | drift | expert |\n|---|---|---|---|", flush=True)
    for task in benchmark.default_tasks():
        plans = plan_episodes(benchmark, [task], first=0, count=arguments.episodes, seed=0)
        idle = [
            sum(bool(r.success) for r in run_episodes(benchmark, Control(benchmark, kind), plans))
            for kind in ("still", "drift")
        ]
        expert = "" if arguments.no_experts else expert_successes(task, arguments.episodes)
        print(f"| {task} | {idle[0]} | {idle[1]} | {expert} |", flush=True)


if __name__ == "__main__":
    main()
