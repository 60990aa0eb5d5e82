"""Rounds on one home and store beside an undisturbed one: kill, look, run again, compare."""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import checks
from tests.faults.pipelines import FaultPipeline
from tests.faults.stores import Harm, StoreUnderTest

# step: the parent, before one of its file operations. The others: at an instant.
WAYS = ("step", "both", "parent", "child", "term")
_PATIENCE_SECONDS = 60.0
Key = tuple[str, str]


@dataclass
class Tally:
    """What happened over all rounds. violations: (seed/campaign/round, text)."""

    counts: collections.Counter = field(default_factory=collections.Counter)
    stages: collections.Counter = field(default_factory=collections.Counter)
    violations: list[tuple[str, str]] = field(default_factory=list)


class Campaign:
    """Every crash meets the leftovers of the ones before. `seed` fixes all that is random; `calm`
    is the undisturbed home, a new one by default."""

    def __init__(
        self,
        pipeline: FaultPipeline,
        store: StoreUnderTest,
        folder: Path,
        tally: Tally,
        seed: str,
        calm: Path | None = None,
    ) -> None:
        self._pipeline, self._store, self._tally, self._seed = pipeline, store, tally, seed
        self._home, self._calm, self._scratch = folder / "home", calm or folder / "calm", folder
        self._view = store.view(self._home)
        self._values = dict(pipeline.start)
        self._past: list[dict[str, Any]] = []
        self._force: list[str] = []
        self._target = ""  # the stage that is aimed at; '' for anything that runs
        self._steps, self._seconds = 0, 0.0
        self._round, self._draw = seed, random.Random(seed)

    def calibrate(self) -> None:
        """Steps and seconds of a run that nobody kills: the range that instants are drawn from."""
        started = time.monotonic()
        result = self._run(self._home)
        self._seconds, self._steps = time.monotonic() - started, result.get("steps", 0)

    def round(self, number: int, most: int) -> int:
        """One set of values: runs that are killed (at most `most`), then one to the end. How many
        kills found their run alive."""
        self._round = f"{self._seed}/{number}"
        self._draw = random.Random(self._round)
        change = self._aim() if self._pipeline.aimed else self._change()
        self._force = [self._draw.choice(self._pipeline.stages)] if change == "force" else []
        self._tally.counts[f"change: {change}"] += 1
        calm = self._run(self._calm)
        if self._target:
            self._seconds = self._calm_seconds(calm)
        kills = self._draw.choice((1, 1, 1, 2, 3))
        done = 0
        while done < min(kills, most) and self._disturbed():
            done += 1
        harm = self._harm() if self._draw.random() < 0.15 else None
        self._resume(calm, harm)
        self._past.append(dict(self._values))
        return done

    def _aim(self) -> str:
        """Makes the stage that was met least run again, alone."""
        self._target = min(self._pipeline.stages, key=lambda name: self._tally.stages[name])
        leaves = self._pipeline.leaves
        leaf = next((n for n in leaves if n.startswith(f"{self._target}.")), f"{self._target}.seed")
        self._values[leaf] = leaves.get(leaf, _seed)(self._draw)
        return "a value of the stage aimed at"

    def _change(self) -> str:
        """What differs from the round before; mostly everything, so that all stages run."""
        kinds = ("all", "leaf", "nothing new in bytes", "back", "force")
        kind = self._draw.choices(kinds, (50, 20, 10, 10, 10))[0]
        if kind == "back" and self._past:
            self._values = dict(self._draw.choice(self._past))
        elif kind == "nothing new in bytes" and self._pipeline.silent:
            self._values[self._pipeline.silent] = f"c{self._draw.randrange(10**6)}"
        elif kind == "leaf":
            leaf = self._draw.choice(sorted(self._pipeline.leaves))
            self._values[leaf] = self._pipeline.leaves[leaf](self._draw)
        elif kind != "force":
            kind = "all"
            for leaf, value in self._pipeline.leaves.items():
                self._values[leaf] = value(self._draw)
        return kind

    def _disturbed(self) -> bool:
        """One disturbed run and a look at what it left. False when it had ended before."""
        before = self._view.committed()
        way = self._draw.choices(WAYS, self._pipeline.weights)[0]
        landed, detail = self._step() if way == "step" else self._instant(way)
        self._tally.counts[f"killed: {way}" if landed else "ended before its kill"] += 1
        print(f"  {self._round} {way} {detail}{'' if landed else ' (too late)'}", flush=True)
        self._expect(_lines(checks.leftover(self._home, self._pipeline.patience)), "process left")
        self._expect(_lines(self._view.damage()), "half artifact")
        after = self._view.committed()
        if not self._force:  # killed between two renames, a forced one stands aside until its lease
            self._expect(_names(set(before) - set(after)), "lost commit")
        return landed

    def _step(self) -> tuple[bool, str]:
        step = self._draw.randint(1, self._steps)
        process = self._start(self._home, ["--kill-before", str(step)], force=self._force)
        process.communicate()
        return process.returncode == -signal.SIGKILL, f"{step}"

    def _instant(self, way: str) -> tuple[bool, str]:
        cli = self._draw.random() < self._pipeline.cli_share
        delay = self._draw.uniform(0.0, self._seconds + 4 * (cli and not self._target))
        detail = f"after {delay:.2f} s{' of foundry run' if cli else ''}"
        process = self._start(self._home, force=self._force, cli=cli)
        while self._target and self._target not in self._children().values():
            if process.poll() is not None:
                return False, f"{detail}: {self._target} never ran"
            time.sleep(0.02)
        try:
            process.communicate(timeout=delay)
            return False, detail
        except subprocess.TimeoutExpired:
            detail += self._kill(process, way)
        try:
            process.communicate(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._expect([f"after {way}"], "a killed run does not end")
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        self._tally.counts["of them through `foundry run`"] += cli
        return True, detail

    def _kill(self, process: subprocess.Popen, way: str) -> str:
        """Kills; returns in which stages."""
        children = self._children()
        stages = list(children.values())
        self._tally.stages.update(name for name in stages if name)
        targets = {
            "parent": [process.pid],
            "child": [*children] or [process.pid],
            "both": [*children, process.pid],
            "term": [process.pid],
        }[way]
        for pid in targets:
            try:
                os.kill(pid, signal.SIGTERM if way == "term" else signal.SIGKILL)
            except ProcessLookupError:
                continue
        return f" in {', '.join(filter(None, stages))}" if any(stages) else ""

    def _children(self) -> dict[int, str]:
        """pid → stage ('' when it is just ending) of the stage processes of this home."""
        found = checks.processes(self._home)
        return {
            p: checks.stage_of(line)
            for p, line in found.items()
            if "foundry_core.execution.child" in line
        }

    def _harm(self) -> Harm | None:
        harm = self._store.harm(self._home, self._draw)
        if harm:
            self._tally.counts[f"files {harm.way} by hand"] += 1
        return harm

    def _resume(self, calm: Mapping[str, Any], harm: Harm | None) -> None:
        before = self._view.committed()
        started = time.monotonic()
        result = self._run(self._home)
        if not result or not calm:
            return
        seconds = time.monotonic() - started
        if seconds > 2 * self._seconds + _PATIENCE_SECONDS:
            self._expect(["the next run waited for a dead one"], "lease")
        found = self._view.committed()
        damage = self._view.damage()
        excused = {k for k, m in before.items() if harm and harm.key in (k[1], m["linked_to"])}
        for name, row in result["stages"].items():
            self._compare(name, tuple(row), calm["stages"].get(name), found, damage)
        self._expect(_names(set(before) - set(found) - excused), "lost commit")
        if not harm:
            self._needless(result, set(before))
        elif damage.keys() <= excused and damage:
            self._store.put_back(harm)  # no stage of this run needed it
            damage = self._view.damage()
        self._tally.counts["damaged artifacts mended or refused"] += bool(harm)
        self._expect(_lines(damage), "half artifact")
        self._expect(_lines(checks.leftover(self._home, self._pipeline.patience)), "process left")
        self._lineage(result, {key for _, key in found})

    def _compare(
        self,
        name: str,
        row: tuple[str, str, str, str],
        calm: list[str] | None,
        found: Mapping[Key, dict],
        damage: Mapping[Key, str],
    ) -> None:
        """A stage's result against the undisturbed one."""
        _, kind, key, content = row
        if (kind, key) in damage:
            self._expect([f"{name}: {damage[kind, key]}"], "damaged artifact reused")
        elif (kind, key) not in found:
            self._expect([f"{name}: {key[:12]} is not there"], "lost commit")
        elif calm is not None and content != calm[3]:
            self._expect([f"{name}: {content[:12]}, calm {calm[3][:12]}"], "wrong result")
        elif calm is not None and checks.outputs(found[kind, key]) != self._calm_outputs(calm):
            self._expect([f"{name}: other files"], "wrong result")
        else:
            self._tally.counts["results compared byte for byte"] += calm is not None

    def _needless(self, result: Mapping[str, Any], committed: set[Key]) -> None:
        """Without damage nothing that is committed is built again."""
        for name, (action, kind, key, _) in result["stages"].items():
            if action == "run" and (kind, key) in committed:
                self._expect([f"{name} {key[:12]} was built again"], "needless run")

    def _lineage(self, result: Mapping[str, Any], keys: set[str]) -> None:
        events = self._store.events(self._home)
        self._expect(checks.lineage_differences(self._home, events, self._scratch), "lineage")
        index = self._home / "lineage.duckdb"
        self._expect(checks.unlisted(index, keys), "unlisted")
        settled = {row[2] for row in result["stages"].values()}
        self._expect(checks.unfinished_attempts(index, settled), "attempt in flight")

    def _calm_outputs(self, row: list) -> list[tuple[str, str]]:
        return checks.outputs(self._calm_manifest(row))

    def _calm_seconds(self, calm: Mapping[str, Any]) -> float:
        """How long the process of the stage aimed at lives."""
        row = calm.get("stages", {}).get(self._target)
        return self._calm_manifest(row)["seconds"] if row else self._seconds

    def _calm_manifest(self, row: list) -> dict[str, Any]:
        return checks.LocalView(self._calm / "store").committed()[row[1], row[2]]

    def _run(self, home: Path) -> dict[str, Any]:
        """An undisturbed run to its end."""
        process = self._start(home)
        try:
            out, err = process.communicate(timeout=4 * self._seconds + 10 * _PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            self._expect(["an undisturbed run does not end"], "lease")
            return {}
        if process.returncode != 0:
            self._expect([f"{out[-300:]} {err[-1500:]}"], "run failed")
            return {}
        return json.loads(out.strip().splitlines()[-1])

    def _start(
        self,
        home: Path,
        extra: Iterable[str] = (),
        *,
        force: Iterable[str] = (),
        cli: bool = False,
    ) -> subprocess.Popen:
        module = ["flows.cli", "run", "--json"] if cli else ["tests.faults.worker"]
        overrides = [
            part for k, v in self._values.items() for part in ("-o", f"{k}={json.dumps(v)}")
        ]
        forced = [part for name in force for part in ("--force", name)]
        only = ["--only", self._target] if self._target else []
        home.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "FOUNDRY_HOME": str(home), "OMP_NUM_THREADS": "1"}
        environment |= self._pipeline.environment
        calm = {"FOUNDRY_STORE": str(home / "store")}
        environment |= calm if home == self._calm else self._store.environment(home)
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                *module,
                self._pipeline.path,
                *overrides,
                *forced,
                *only,
                *extra,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def _expect(self, problems: Iterable[str], what: str) -> None:
        for problem in problems:
            self._tally.violations.append((self._round, f"{what}: {problem}"))
            print(f"  VIOLATION {self._round} {what}: {problem}", flush=True)


def _seed(draw: random.Random) -> int:
    return draw.randrange(10**6)


def _names(keys: Iterable[Key]) -> list[str]:
    return [f"{kind}/{key[:12]}" for kind, key in sorted(keys)]


def _lines(found: Mapping[Any, str]) -> list[str]:
    return [f"{key}: {text}" for key, text in found.items()]
