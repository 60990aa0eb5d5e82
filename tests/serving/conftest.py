"""Makes the loader's and the training stages' synthetic material importable; one thread."""

import sys
from pathlib import Path

import pytest
import torch

_TESTS = Path(__file__).resolve().parents[1]
for folder in (_TESTS / "tasks", _TESTS / "data" / "loading", _TESTS / "serving"):
    sys.path.append(str(folder))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
