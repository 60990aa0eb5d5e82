"""Where LBM Eval is installed, and which one it is. Planning imports this."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.files import sha256_hex, sha256_of

VARIABLE = "FOUNDRY_LBM_EVAL"
_PROGRAM = "evaluate"
_WHEELS = ("lbm_eval", "lbm_eval_models", "lbm_eval_scenarios", "robot_gym")
_HINT = (
    f"install its wheels in an environment of their own and set {VARIABLE} to that folder, or to "
    f"a program that takes what its `{_PROGRAM}` takes"
)


@dataclass(frozen=True, kw_only=True)
class Installation:
    """program: its `evaluate`. python: the interpreter that has it, which can be told single
    scenarios; None of a program alone, such as one that starts a container. metadata: wheel → its
    folder of metadata, none where the wheels are not to be seen."""

    program: Path
    python: Path | None
    metadata: Mapping[str, Path]

    def versions(self) -> dict[str, str]:
        """Wheel → version; of a program alone the beginning of its digest."""
        if not self.metadata:
            return {"lbm_eval": f"sha256:{sha256_of(self.program)[:12]}"}
        return {
            wheel: place.name.removeprefix(f"{wheel}-").removesuffix(".dist-info")
            for wheel, place in self.metadata.items()
        }

    def fingerprint(self) -> str:
        """sha256 over the wheels' lists of files, or the program."""
        if not self.metadata:
            return sha256_of(self.program)
        records = [place / "RECORD" for place in self.metadata.values()]
        digests = [sha256_of(record) if record.is_file() else "" for record in records]
        return sha256_hex("\n".join([*map(str, self.versions().items()), *digests]))


def find_installation() -> Installation:
    """Of the folder or program that FOUNDRY_LBM_EVAL names, else of the `evaluate` on the PATH that
    is LBM Eval's. FoundryError where there is none."""
    named = os.environ.get(VARIABLE, "")
    if not named:
        found = shutil.which(_PROGRAM)
        installation = _of_program(Path(found)) if found else None
        # Other packages have an `evaluate`, too.
        if installation is None or not installation.metadata:
            raise FoundryError("benchmark 'lbm' needs LBM Eval, which is not installed", _HINT)
        return installation
    place = Path(named).expanduser().absolute()
    program = place / "bin" / _PROGRAM if place.is_dir() else place
    if not os.access(program, os.X_OK):
        raise FoundryError(f"{VARIABLE}={named}: {program} is no program", _HINT)
    return _of_program(program)


def _of_program(program: Path) -> Installation:
    folders = sorted(program.parent.parent.glob("lib/python3*/site-packages"))
    metadata = {
        wheel: place
        for folder in folders
        for wheel in _WHEELS
        for place in sorted(folder.glob(f"{wheel}-*.dist-info"))
    }
    python = program.parent / "python"
    has_it = "lbm_eval" in metadata and os.access(python, os.X_OK)
    return Installation(
        program=program,
        python=python if has_it else None,
        metadata=metadata if "lbm_eval" in metadata else {},
    )
