"""Fixtures of the lineage tests; the history they index is in history.py."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from history import write_history

from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index
from foundry_core.lineage.queries import INDEX_NAME, connect


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "store" / "events")


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory):
    """The history, indexed once for all tests that only read: (names, home, log)."""
    home = tmp_path_factory.mktemp("home")
    log = EventLog(home / "store" / "events")
    names = write_history(log)
    Index(home / INDEX_NAME, log).advance()
    return SimpleNamespace(names=names, home=home, log=log)


@pytest.fixture
def lineage(history):
    with connect(history.home) as connection:
        yield connection
