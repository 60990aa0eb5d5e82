"""An episode of an evaluation as a file for rerun's viewer: the scene's video, and what was
measured and commanded at each control step. Needs the extra `rerun`.

Videos and tracks come from the store, which others may have written: both are bounded before they
are read, and the video is handed on as it is.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError

_MAX_VIDEO = 1 << 28
_MAX_TRACK = 1 << 26
"""Bytes, of a track unpacked."""
_MAX_FIELDS, _MAX_DIMS = 1000, 1000
CAMERA = "scene"
INSTALL = "pip install 'foundry-robotics[rerun]'"


def write_rerun(path: Path, *, name: str, video: Path, track: Path, hz: float) -> int:
    """Writes the episode `name`; returns its control steps. Timelines: `step`, and `time` in
    seconds. FoundryError where rerun is not installed, and for what is no recorded episode."""
    try:
        import rerun
    except ImportError as error:
        raise FoundryError(f"rerun is not installed here ({error})", INSTALL) from error
    fields = read_track(track)
    if video.stat().st_size > _MAX_VIDEO:
        raise FoundryError(f"{video}: a video of more than {_MAX_VIDEO >> 20} MB")
    steps = len(next(iter(fields.values()))) if fields else 0
    path.parent.mkdir(parents=True, exist_ok=True)
    recording = rerun.RecordingStream("foundry", recording_id=name)
    recording.save(str(path))
    recording.log("episode", rerun.TextDocument(name), static=True)
    recording.log(
        CAMERA, rerun.AssetVideo(contents=video.read_bytes(), media_type="video/mp4"), static=True
    )
    for step in range(steps + 1):  # the last picture is of after the last command
        seconds = step / hz
        recording.set_time("step", sequence=step)
        recording.set_time("time", duration=seconds)
        recording.log(CAMERA, rerun.VideoFrameReference(seconds=seconds))
        if step < steps:
            for field, values in fields.items():
                recording.log(field.split("/", 1), rerun.Scalars(values[step]))
    recording.flush()
    recording.disconnect()
    return steps


def read_track(path: Path) -> dict[str, Any]:
    """`observed/<field>` and `commanded/<field>` → float64 [T, D], all of one T. FoundryError for
    anything else."""
    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        if len(members) > _MAX_FIELDS or sum(one.file_size for one in members) > _MAX_TRACK:
            raise ValueError(f"more than {_MAX_FIELDS} fields or {_MAX_TRACK >> 20} MB")
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
        _check(found)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FoundryError(f"{path} is no track of an episode: {error}") from error
    return found


def rate_of(evaluation: Path) -> float:
    """Control steps per second, as an evaluation's file says."""
    facts = json.loads(evaluation.read_text(encoding="utf-8"))
    hz = facts.get("hz") if isinstance(facts, dict) else None
    if not isinstance(hz, int | float) or not 0 < hz < 1e6:
        raise FoundryError(f"{evaluation}: hz is {hz!r}, not a rate")
    return float(hz)


def _check(found: Mapping[str, Any]) -> None:
    lengths = set()
    for name, values in found.items():
        if name.split("/")[0] not in ("observed", "commanded"):
            raise ValueError(f"a field {name!r}")
        if values.dtype.kind != "f" or values.ndim != 2 or values.shape[1] > _MAX_DIMS:
            raise ValueError(f"{name} is {values.dtype} {values.shape}, not numbers [T, D]")
        lengths.add(len(values))
    if len(lengths) > 1:
        raise ValueError(f"fields of {sorted(lengths)} steps")
