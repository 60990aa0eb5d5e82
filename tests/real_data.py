"""Where files of other tools lie, on machines that have them."""

import os
from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
REAL_DATA = Path(os.environ.get("FOUNDRY_TEST_DATA", _BESIDE))
FORMATS = REAL_DATA / "formats"
ABSENT = f"{REAL_DATA} is absent or lacks them (set FOUNDRY_TEST_DATA to the folder of real data)"
