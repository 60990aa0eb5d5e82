"""Makes the loader's synthetic datasets importable."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "data" / "loading"))
