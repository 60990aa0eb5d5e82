"""Robot sources by format: a reference per episode, and an Episode per reference."""

from pathlib import Path

from foundry_core.data.robot.episodes import Episode
from foundry_core.data.sources.config import RobotSource, Spartan
from foundry_core.data.sources.demonstrations import demonstration_refs, read_demonstration
from foundry_core.data.sources.spartan import read_spartan, spartan_refs


def episode_refs(source: RobotSource) -> list[Path]:
    root = Path(source.path)
    return spartan_refs(root) if isinstance(source, Spartan) else demonstration_refs(root)


def read_episode(source: RobotSource, ref: Path) -> Episode:
    if isinstance(source, Spartan):
        return read_spartan(ref, Path(source.path), source.folders_above())
    return read_demonstration(ref)
