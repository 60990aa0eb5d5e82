"""What attempts leave in a key's local work folder, and when it may go."""

import shutil
import time
from pathlib import Path

from foundry_core.files import extent

# A training that nobody resumes for so long is given up.
SCRATCH_SECONDS = 30 * 86_400.0
# Below work/<key>, followed by the kind: an artifact whose successor is about to be published.
REPLACED = "replaced-"
_OF_ATTEMPTS = ("a", "control-", "link-", "trash-")


def sweep_work(work: Path, committed: bool, older_than: float, apply: bool) -> int:
    """Bytes of a key's work folder that nobody will ask for; removed if `apply`. Scratch, from
    which training resumes, goes only when the key is committed or after SCRATCH_SECONDS."""
    freed = 0
    for path in [*work.iterdir()] if work.is_dir() else []:
        if path.name.startswith(REPLACED) and not committed:
            continue
        leftover = path.name.startswith(_OF_ATTEMPTS) and path.is_dir()
        limit = older_than if committed or leftover else max(older_than, SCRATCH_SECONDS)
        size, newest = extent(path)
        if time.time() - newest > limit:
            freed += size
            if apply:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if apply and work.is_dir() and not any(work.iterdir()):
        work.rmdir()
    return freed
