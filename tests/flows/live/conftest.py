"""A home of its own for every test, with the pages over it."""

import pytest
from live_home import Home


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FOUNDRY_STORE", raising=False)
    return Home()
