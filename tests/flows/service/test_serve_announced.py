"""What `foundry serve` says of where it is and how to log in."""

import sys

import pytest

from flows.cli import main
from flows.cli.commands import serve
from flows.prefect import secret
from flows.service import diagnosis
from foundry_core.errors import FoundryError

URL = "http://127.0.0.1:4200"
PASSWORD = "foundry:secret"


@pytest.fixture(autouse=True)
def home(small_home, monkeypatch):
    monkeypatch.delenv(secret.SERVER, raising=False)
    return small_home


def announced(capsys, terminal, monkeypatch, password=PASSWORD):
    with monkeypatch.context() as patched:
        patched.setattr(sys.stderr, "isatty", lambda: terminal)
        serve._announce(f"{URL}/api", password, ["foundry/full"], 1, 18.0)
    return capsys.readouterr().err.splitlines()


def test_a_terminal_gets_the_link_that_logs_in_and_then_the_runs(capsys, monkeypatch):
    lines = announced(capsys, True, monkeypatch)
    assert lines[0].startswith(f"ready in 18 s: {URL}/foundry-login#{PASSWORD}   ")
    assert lines[1].endswith(f"{URL}/foundry-runs")


def test_a_file_names_the_file_with_the_password_and_not_the_password(capsys, monkeypatch, home):
    lines = announced(capsys, False, monkeypatch)
    assert lines[0].startswith(f"ready in 18 s: {URL}   ")
    assert f"{URL}/foundry-login#PASSWORD" in lines[2]
    assert str(home / "serve" / "password") in lines[2]
    assert "secret" not in "\n".join(lines)
    assert "log in" not in "\n".join(announced(capsys, False, monkeypatch, password=""))


def test_a_chosen_password_is_named_by_its_variable(capsys, monkeypatch):
    monkeypatch.setenv(secret.SERVER, PASSWORD)
    said = "\n".join(announced(capsys, False, monkeypatch))
    assert f"PASSWORD is the value of {secret.SERVER}" in said and "serve/password" not in said
    assert f'export {secret.CLIENT}="${secret.SERVER}"' in said


def test_it_says_what_it_does_once_nothing_stands_against_it(home, capsys, monkeypatch):
    said = []

    def starts(*_):
        said.append(capsys.readouterr().err)
        raise FoundryError("enough seen")

    for name in ("PREFECT_API_URL", secret.CLIENT):  # it sets them for what it starts
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(diagnosis, "unusable", lambda host, port: [])
    monkeypatch.setattr("flows.service.serve.Services", starts)
    assert main(["serve", "--port", "4321"]) == 2
    assert said == ["starts Prefect's server on 127.0.0.1:4321: about 20 s …\n"]
    taken = diagnosis.Finding(problem="the port is taken", remedy="another one")
    monkeypatch.setattr(diagnosis, "unusable", lambda host, port: [taken])
    assert main(["serve", "--port", "4321"]) == 2
    assert capsys.readouterr().err.count("\n") == 2  # of both the last line
