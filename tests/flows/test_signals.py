"""A command that is asked to end does so soon, records it, and leaves nothing behind."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from flows import signals
from flows.cli import reported
from flows.signals import ended_as_asked
from foundry_core.execution.python import python_command
from foundry_core.lineage.connection import attach
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index
from tests.orchestration import Serving, free_port, until
from tests.support import WORDS

KINDS = WORDS.parent
STUCK = """
import time
from flows.signals import ends_on_signals
with ends_on_signals(0.5):
    while True:
        try:
            print("busy", flush=True)
            while True:
                time.sleep(0.05)
        except BaseException:
            pass
"""
HELD = """
import os, signal
from flows.signals import ends_on_signals, held
with ends_on_signals(), held() as released:
    os.kill(os.getpid(), signal.SIGTERM)
    print("whole", flush=True)
    try:
        with released():
            print("not reached")
    except KeyboardInterrupt as error:
        print(error)
    os.kill(os.getpid(), signal.SIGTERM)
    print("recorded")
"""


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (signal.SIGINT, KeyboardInterrupt, 130),
        (signal.SIGTERM, signals.Terminated, 143),
        (signal.SIGHUP, signals.Terminated, 129),
    ],
)
def test_a_signal_is_an_exception_within_and_nothing_lingers(number, kind, code):
    before = signal.getsignal(number)
    threads = set(threading.enumerate())
    with pytest.raises(kind) as raised, signals.ends_on_signals(0.1):
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert signals.exit_code(raised.value) == code
    assert signal.getsignal(number) is before
    assert signal.set_wakeup_fd(-1) == -1
    with signals.ends_on_signals(0.1):
        pass
    time.sleep(0.3)  # nobody kills a block that was left
    assert not set(threading.enumerate()) - threads


def test_a_server_that_was_told_to_stop_was_not_interrupted(capsys):
    def served():
        with ended_as_asked():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    assert reported(served) == 130
    assert capsys.readouterr().err == "foundry: stopped, as asked\n"


def test_in_other_threads_nothing_changes():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def work():
        with signals.ends_on_signals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


def test_what_is_held_is_ended_whole():
    done = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True)
    assert done.stdout == "whole\nSIGTERM\nrecorded\n", done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_does_not_end_is_killed_and_told_so(number):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "busy\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert f"({number.name}), still busy after 0.5 s: killed" in err


# As a script starts a command with `&`, and as `nohup` does.
BEHIND = ("sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh")
IGNORED = """
import os, signal
from flows.signals import ends_on_signals
with ends_on_signals():
    os.kill(os.getpid(), signal.SIGHUP)
    print("stays", flush=True)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt:
        print("ends")
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""


def test_what_a_script_started_ends_on_sigint_and_outlives_its_terminal():
    command = [*BEHIND, sys.executable, "-c", IGNORED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "stays\nends\nTrue\n", done.stderr


class Terminal:
    """A command in a terminal of its own, as a person starts it."""

    def __init__(self, home: Path, *arguments: str, behind: tuple[str, ...] = ()):
        """behind: the words of a command that starts this one."""
        self.home, self.text = home, ""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        own = {"FOUNDRY_HOME": str(home), "FOUNDRY_KINDS": "tests.kinds"}
        environment = kept | own | {"FOUNDRY_PIPELINES": str(KINDS), "OMP_NUM_THREADS": "1"}
        command = [*behind, *python_command("flows.cli", *arguments)]
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, environment)

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def until(self, condition, seconds: float = 240) -> None:
        """Reads what is printed meanwhile: a full terminal would stop the command."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.text
            self._read()

    def _read(self) -> None:
        if select.select([self._terminal], [], [], 0.05)[0]:
            try:
                self.text += os.read(self._terminal, 1 << 16).decode(errors="replace")
            except OSError:  # its last process is gone
                time.sleep(0.05)

    def ended(self, seconds: float = 60) -> int:
        status = []

        def gone():
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            status.append(code)
            return pid

        self.until(gone, seconds)
        self._read()
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status[-1])

    def trains(self) -> bool:
        return bool(list(self.home.glob("store/work/*/scratch/state.json")))


def left_of(home: Path) -> list[str]:
    """Everything that a command which has ended must not leave in its home."""
    serving = Serving(home)
    left = [f"process {pid}" for pid in serving.processes()]
    left += [f"lease {key}" for key in serving.leases()]
    return left + [f"file {path.name}" for path in (home / "processes").glob("*")]


def statuses(home: Path) -> set[str]:
    Index(home / "lineage.duckdb", EventLog(home / "store" / "events")).advance()
    with attach(home / "lineage.duckdb") as connection:
        running = connection.execute("from attempt where state = 'running'").fetchall()
        assert running == []
        return {s for (s,) in connection.execute("select status from pipeline_run").fetchall()}


RUN = ("run", str(WORDS), "-o", "model.seconds=20", "-o", "model.steps=40")
ABLATE = (
    *("ablate", str(KINDS / "exams.yaml"), "--vary", "model.rate=0.1,0.2"),
    *("-o", "model.seconds=20", "-o", "model.steps=40", "-o", "model.resources.gpus=0"),
)


@pytest.mark.slow("kills runs and resumes them")
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "arguments", [RUN, ABLATE, (*RUN, "--prefect")], ids=["run", "ablate", "prefect"]
)
@pytest.mark.parametrize("how", ["keys", "term", "all"])
def test_a_run_in_a_terminal_ends_soon_and_the_next_one_resumes(arguments, how, tmp_path):
    """keys: Ctrl-C. term: SIGTERM to the command. all: to all its processes at once, as the end of
    a container or of a batch job sends it."""
    home = tmp_path / "home"
    terminal = Terminal(home, *arguments)
    terminal.until(terminal.trains)
    if how == "keys":
        terminal.type("\x03")
    elif how == "term":
        os.kill(terminal.pid, signal.SIGTERM)
    else:
        for pid in Serving(home).processes():
            os.kill(pid, signal.SIGTERM)
    assert terminal.ended(40) == (130 if how == "keys" else 143)
    assert terminal.text.count("cancelled; the next run takes up what it left") == 1
    assert "Traceback" not in terminal.text
    until(lambda: not left_of(home), 5, f"nothing is left: {left_of(home)}")
    assert statuses(home) == {"cancelled"}
    assert Terminal(home, *arguments).ended(300) == 0
    assert "succeeded" in statuses(home)
    resumed = [int(path.read_text()) for path in home.glob("store/train/*/records/resumed.txt")]
    assert max(resumed) > 0


@pytest.mark.slow("kills runs and resumes them")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["term", "cancel"])
def test_a_run_that_a_script_started_ends_and_the_next_one_resumes(how, tmp_path):
    """Its SIGINT is ignored when it begins. cancel: `foundry cancel` in another shell."""
    home = tmp_path / "home"
    terminal = Terminal(home, *RUN, behind=BEHIND)
    terminal.until(terminal.trains)
    if how == "term":
        os.kill(terminal.pid, signal.SIGTERM)
    else:
        (run,) = (path.stem for path in (home / "processes").glob("run*"))
        name = json.loads((home / "processes" / f"{run}.json").read_text())["id"]
        own = {"FOUNDRY_HOME": str(home)}
        command = python_command("flows.cli", "cancel", name)
        subprocess.run(command, env=os.environ | own, check=True, timeout=60)
    assert terminal.ended(40) == (143 if how == "term" else 130)
    until(lambda: not left_of(home), 5, f"nothing is left: {left_of(home)}")
    assert statuses(home) == {"cancelled"}
    assert Terminal(home, *RUN, behind=BEHIND).ended(300) == 0
    assert "succeeded" in statuses(home)


@pytest.mark.slow("kills a run")
@pytest.mark.timeout(600)
def test_a_second_ctrl_c_ends_at_once(tmp_path):
    terminal = Terminal(tmp_path / "home", *RUN)
    terminal.until(terminal.trains)
    terminal.type("\x03")
    time.sleep(0.5)
    terminal.type("\x03")
    # Killed, or by Python's own end where it comes after the last step: a shell says 130 of both.
    assert terminal.ended(3) in (130, -signal.SIGINT)
    until(lambda: not Serving(terminal.home).processes(), 3, "no process is left")


@pytest.mark.slow("Prefect's server and workers")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_in_a_terminal_ends_what_it_runs(number, tmp_path):
    serving = Serving(tmp_path / "home")
    serving.port = free_port()
    serving.url = f"http://127.0.0.1:{serving.port}/api"
    terminal = Terminal(serving.home, "serve", "--port", str(serving.port))
    terminal.until(lambda: "--watch" in terminal.text)
    flow_run = serving.submit("foundry/full", **json.loads(LONG))
    terminal.until(terminal.trains)
    assert serving.state(flow_run) == "RUNNING"
    if number == signal.SIGINT:
        terminal.type("\x03")
    else:
        os.kill(terminal.pid, number)
    assert terminal.ended(60) == 128 + number
    assert "Traceback" not in terminal.text
    until(lambda: not left_of(serving.home), 5, f"nothing is left: {left_of(serving.home)}")
    assert statuses(serving.home) == {"cancelled"}


LONG = """{"pipeline": "exams", "dispatch": "inline", "overrides": [
    {"path": "model.seconds", "value": "600"}, {"path": "model.resources.gpus", "value": "0"}]}"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["keys", "term", "quiet"])
def test_a_served_policy_in_a_terminal_stops_soon_and_leaves_nothing(how, tmp_path):
    """Ctrl-C and SIGTERM end it with clients connected, whose requests are answered or refused in a
    line; quiet: with none."""
    from foundry_core.serving.client import LbmClient, OpenPiClient, VlaEvalClient

    ports = ("--lbm", "0", "--openpi", "0", "--vla-eval", "0")
    terminal = Terminal(tmp_path / "home", "policy", "serve", "--wave", *ports)
    terminal.until(lambda: "any rate" in terminal.text, 60)
    line = next(line for line in terminal.text.splitlines() if "(Ctrl-C stops)" in line)
    lbm, openpi, vla_eval = (int(n) for n in re.findall(r"port (\d+)", line))
    seen = {
        "robot__actual__poses__right::panda__xyz": np.array([0.1, 0.2, 0.3]),
        "robot__actual__poses__right::panda__rot_6d": np.array([1.0, 0, 0, 0, 1, 0]),
        "robot__actual__grippers__right::panda_hand": np.array([0.04]),
    }
    clients = []
    if how != "quiet":
        clients = [
            LbmClient("127.0.0.1", lbm),
            OpenPiClient("127.0.0.1", openpi),
            VlaEvalClient("127.0.0.1", vla_eval),
        ]
        clients[0].reset(0)
        action = clients[0].step({"images": {}, "lowdim": seen, "instruction": ""})
        assert action.pose_status[0].pose.translation[2] == pytest.approx(0.3, abs=0.02)
        assert clients[1].infer({f"observation/{k}": v for k, v in seen.items()}).shape == (8, 10)
        clients[2].start({})
        assert clients[2].act({"states": seen}).shape == (10,)
    if how == "keys":
        terminal.type("\x03")
    else:
        os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.ended(15) == (130 if how == "keys" else 143)
    assert "Traceback" not in terminal.text
    assert "stops: " in terminal.text
    assert "planned: p50" in terminal.text or how == "quiet"
    for client in clients:
        client.close()
    assert not Serving(tmp_path / "home").processes()
