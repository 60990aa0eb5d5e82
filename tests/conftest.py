"""Shared fixtures. Real data lies beside the checkout on some machines only."""

import os
import shutil
import signal
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

from tests.real_data import ABSENT, REAL_DATA

# Everyday runs try the same examples each time; `make test-all` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("search", print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

# Who asks for no home of its own gets the run's. Prefect reads its settings once a process, from
# the home of whoever imports it first: a checkout without a .foundry has none to offer.
_HOME = tempfile.TemporaryDirectory(prefix="foundry-tests-", ignore_cleanup_errors=True)
os.environ["FOUNDRY_HOME"] = _HOME.name
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Hundreds of processes are begun: where Python may not keep what it compiled, each compiles our
# modules anew, a fifth of a stage's start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# A script's `&` and nohup leave signals ignored to what they start, and the tests of endings would
# wait for minutes.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

REPOSITORY = Path(__file__).resolve().parents[1]
LONG_SECONDS = 20.0


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: what a gzip file is called would hold the second it was
    made in, and two processes that collect the same tests must give them the same names."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow test's reason goes with its reports, also to another process."""
    for item in items:
        mark = item.get_closest_marker("slow")
        if mark is not None:
            item.user_properties.append(("slow", str(*mark.args)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names every test that took long, with its reason."""
    took, why = Counter[str](), dict[str, object]()
    for report in (one for group in terminalreporter.stats.values() for one in group):
        if isinstance(report, pytest.TestReport):
            took[report.nodeid] += report.duration
            why[report.nodeid] = dict(report.user_properties).get("slow", "not marked slow")
    long = [(name, seconds) for name, seconds in took.most_common() if seconds > LONG_SECONDS]
    if long:
        terminalreporter.section(f"tests that took more than {LONG_SECONDS:g} s")
    for name, seconds in long:
        terminalreporter.line(f"{seconds:6.0f} s  {name}: {why[name]}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not REAL_DATA.is_dir():
        pytest.skip(f"no files of other tools: {ABSENT}")
    return REAL_DATA


@pytest.fixture
def small_home(tmp_path, monkeypatch):
    """A home and a store of its own for the small kinds; runs that were forked there are ended."""
    from tests.runs import end_forked

    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    monkeypatch.delenv("FOUNDRY_STORE", raising=False)
    yield tmp_path / "home"
    end_forked()


_SUMMARIES: dict[str, dict] = {}


@pytest.fixture
def known_code(monkeypatch):
    """What our sources say is read once for all tests that ask for this. A new home would begin at
    nothing, and a plan of shipped stages reads 400 modules, for seconds."""
    from foundry_core.identity import code_modules

    monkeypatch.setattr(code_modules, "cached", lambda name: _SUMMARIES.setdefault(name, {}))
    monkeypatch.setattr(code_modules, "keep", lambda name, value: None)


@pytest.fixture(scope="session")
def _built(tmp_path_factory):
    """A home in which the small pipeline ran once."""
    from tests.runs import run

    folder = tmp_path_factory.mktemp("built") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDRY_HOME", str(folder))
        patch.setenv("FOUNDRY_KINDS", "tests.kinds")
        patch.delenv("FOUNDRY_STORE", raising=False)
        run()
    return folder


@pytest.fixture
def built_home(small_home, _built):
    """As `small_home`, after a run of the small pipeline: `run()` reuses all of it, and begins none
    of its four processes."""
    shutil.copytree(_built, small_home, symlinks=True)
    return small_home


@pytest.fixture
def install_member(tmp_path, monkeypatch):
    """Installs a distribution with one member of an open set, in one module, as pip would."""
    from foundry_core.config import registry

    def install(group: str, name: str, source: str) -> None:
        folder = tmp_path / "site-packages"
        metadata = folder / f"outside_{name}-1.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"outside_{name}.py").write_text(source)
        (metadata / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: outside-{name}\nVersion: 1\n"
        )
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{name} = outside_{name}\n")
        monkeypatch.syspath_prepend(str(folder))
        registry._entry_points.cache_clear()  # installed members are read once per process

    yield install
    monkeypatch.undo()
    registry._entry_points.cache_clear()
