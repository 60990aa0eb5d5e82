"""Where the artifacts under fault lie; see `s3` for the other one."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.faults.checks import LocalView, View


@dataclass(frozen=True)
class Harm:
    """A file that was flipped, cut or deleted, and what it was."""

    kind: str
    key: str
    way: str
    path: str
    original: bytes


class StoreUnderTest(Protocol):
    def __enter__(self) -> "StoreUnderTest": ...

    def __exit__(self, *error: object) -> None: ...

    def environment(self, home: Path) -> Mapping[str, str]:
        """What a run needs in its environment."""

    def view(self, home: Path) -> View: ...

    def events(self, home: Path) -> str: ...

    def harm(self, home: Path, draw: random.Random) -> Harm | None:
        """Damages one file of one artifact; None when there is none."""

    def put_back(self, harm: Harm) -> None: ...

    def summary(self) -> Mapping[str, int]:
        """What the network did."""


class LocalStore:
    def __init__(self, folder: Path, seed: str) -> None:
        del folder, seed

    def __enter__(self) -> "LocalStore":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def environment(self, home: Path) -> Mapping[str, str]:
        return {"FOUNDRY_STORE": str(home / "store")}

    def view(self, home: Path) -> LocalView:
        return LocalView(home / "store")

    def events(self, home: Path) -> str:
        return str(home / "store" / "events")

    def harm(self, home: Path, draw: random.Random) -> Harm | None:
        """A flip keeps size and modification time, as a failing disk would."""
        owned = [
            (kind, key, home / "store" / kind / key)
            for (kind, key), manifest in sorted(self.view(home).committed().items())
            if not manifest["linked_to"]
        ]
        if not owned:
            return None
        kind, key, folder = draw.choice(owned)
        paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size]
        path = draw.choice([p for p in paths if p.name != "artifact.json"])
        way = draw.choice(("flipped", "cut", "deleted"))
        harm = Harm(kind, key, way, str(path), path.read_bytes())
        data = bytearray(harm.original)
        if way == "deleted":
            path.unlink()
        elif way == "cut":
            path.write_bytes(bytes(data[:-1]))
        else:
            data[draw.randrange(len(data))] ^= 1
            path.write_bytes(bytes(data))
        return harm

    def put_back(self, harm: Harm) -> None:
        Path(harm.path).write_bytes(harm.original)

    def summary(self) -> Mapping[str, int]:
        return {}
