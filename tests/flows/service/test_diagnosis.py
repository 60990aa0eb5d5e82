"""`foundry serve --check` in plain words, without a server."""

import http.server
import importlib.metadata
import threading

import pytest

from flows.cli import main
from flows.prefect import secret
from flows.service import diagnosis
from tests.orchestration import free_port

HOST = "127.0.0.1"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))


@pytest.fixture
def another_program():
    """A port on which something else answers."""
    server = http.server.HTTPServer((HOST, 0), http.server.SimpleHTTPRequestHandler)
    server.RequestHandlerClass.log_message = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_no_server(capsys):
    port = free_port()
    assert main(["serve", "--check", "--port", str(port)]) == 2
    assert f"nothing listens on {HOST}:{port}" in capsys.readouterr().err
    assert diagnosis.unusable(HOST, port) == []


def test_a_port_taken_by_another_program(another_program, capsys):
    assert main(["serve", "--check", "--port", str(another_program)]) == 2
    assert main(["serve", "--port", str(another_program)]) == 2
    said = capsys.readouterr().err
    assert said.count(f"port {another_program} on {HOST} is taken by another program") == 2
    assert f"--port {another_program + 1}" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "no.such.invalid"], "host 'no.such.invalid' is not known"),
        (["--host", "a..b"], "host 'a..b' is not known"),
        (["--port", "0"], "there is no port 0"),
        (["--port", "65536"], "there is no port 65536"),
        (["--host", "203.0.113.7"], "203.0.113.7:4200 cannot be listened on"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(arguments, words, capsys):
    assert main(["serve", *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_beyond_this_machine_a_password_is_needed(monkeypatch, capsys):
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "")
    assert main(["serve", "--host", "0.0.0.0", "--port", str(free_port())]) == 2
    assert "a server on 0.0.0.0 needs a password" in capsys.readouterr().err


def test_a_password_that_others_may_read_is_refused(home, capsys):
    secret.make()
    secret.path().chmod(0o644)
    assert main(["serve", "--port", str(free_port())]) == 2
    said = capsys.readouterr().err
    assert f"{secret.path()}: other users of this machine may read" in said
    assert said.count("\n") == 1


def test_a_home_that_cannot_be_written_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("FOUNDRY_HOME", "/sys/foundry")
    assert main(["serve", "--port", str(free_port())]) == 2
    said = capsys.readouterr().err
    assert "cannot be written" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("package", "version", "words"),
    [
        ("fastapi", "0.151.2", "fastapi 0.151.2 is installed: the server needs >=0.139,<0.151"),
        ("fastapi", "0.99", "fastapi 0.99 is installed"),
        ("prefect", "3.9.0", "prefect 3.9.0 is installed, 3.8.x is needed"),
    ],
)
def test_versions_with_which_a_server_cannot_start(monkeypatch, package, version, words):
    true = importlib.metadata.version
    wrong = lambda name: version if name == package else true(name)  # noqa: E731
    monkeypatch.setattr(importlib.metadata, "version", wrong)
    (finding,) = diagnosis.versions()
    assert words in finding.problem
    assert package in finding.remedy


def test_what_is_installed_is_in_order():
    assert diagnosis.versions() == []
