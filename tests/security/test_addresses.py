"""Stores and services that refuse or are nowhere: one line that names what to mend, soon."""

import socket
import threading

import pytest

from flows.cli import main
from foundry_core import endpoint, objects
from foundry_core.endpoint import check_host, check_url, is_loopback
from foundry_core.errors import FoundryError
from foundry_core.objects import Objects
from foundry_core.retry import Retry


class Refusing:
    """As s3fs: every call raises what S3's answer with this code becomes."""

    def __init__(self, code):
        self._code = code

    def call_s3(self, method, **options):
        from botocore.exceptions import ClientError
        from s3fs.errors import translate_boto_error

        answer = {
            "Error": {"Code": self._code, "Message": "no"},
            "ResponseMetadata": {"HTTPStatusCode": 403},
        }
        error = ClientError(answer, method)
        raise translate_boto_error(error) from error


@pytest.mark.parametrize(
    ("code", "problem", "mend"),
    [
        ("ExpiredToken", "the credentials have expired", "AWS_SESSION_TOKEN"),
        ("ExpiredTokenException", "the credentials have expired", "AWS_SESSION_TOKEN"),
        ("RequestTimeTooSkewed", "the clock of this machine", "NTP"),
        ("InvalidAccessKeyId", "does not know this access key", "AWS_ACCESS_KEY_ID"),
        ("SignatureDoesNotMatch", "the secret key is not that of", "AWS_SECRET_ACCESS_KEY"),
        ("InvalidToken", "the session token is not that of", "AWS_SESSION_TOKEN"),
        ("PermanentRedirect", "another region", "AWS_REGION"),
        ("AccessDenied", "may not list the store (no)", "s3:ListBucket"),
        ("NoSuchBucket", "bucket 'bucket' does not exist", "FOUNDRY_STORE"),
    ],
)
def test_a_refusal_is_named_as_what_it_is(monkeypatch, code, problem, mend):
    pytest.importorskip("s3fs")
    monkeypatch.setattr(objects, "RETRY", Retry(attempts=3, pause=0))
    with pytest.raises(FoundryError) as raised:
        Objects(Refusing(code), "bucket/store").check()
    assert problem in raised.value.message and mend in raised.value.hint


@pytest.mark.parametrize(
    "url",
    ["nonsense", "http://127.0.0.1:99999", "http://", "ftp://host", "http://[::1", "http://h:0"],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(FoundryError, match="is no address"):
        check_url(url, "AWS_ENDPOINT_URL")


def test_an_unknown_host_is_named_at_once(monkeypatch, capsys, tmp_path):
    pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))
    monkeypatch.setenv("FOUNDRY_STORE", "s3://bucket/store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://nowhere.invalid:9000")
    monkeypatch.setattr("urllib.request.getproxies", dict)
    assert main(["plan", "demo-fast"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "AWS_ENDPOINT_URL: host 'nowhere.invalid' is not known" in line


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answered.wait(60))
    monkeypatch.setattr(endpoint, "_SECONDS", 0.05)
    with pytest.raises(FoundryError, match="no name server answered"):
        check_host("somewhere.invalid", "--host")
    answered.set()


def test_a_profile_that_is_not_there_is_named(monkeypatch, capsys, tmp_path):
    pytest.importorskip("s3fs")
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))
    monkeypatch.setenv("FOUNDRY_STORE", "s3://bucket/store")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert main(["plan", "demo-fast"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "nobody" in line and "AWS_PROFILE" in line


@pytest.mark.parametrize("port", ["-1", "99999"])
def test_a_port_that_no_host_has_is_refused(port, capsys):
    assert main(["serve", f"--port={port}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"there is no port {port}" in line


@pytest.mark.parametrize("port", ["9" * 5000, "http"])
def test_what_is_no_number_is_no_port(port, capsys):
    with pytest.raises(SystemExit):
        main(["serve", f"--port={port}"])
    assert "argument --port: invalid int value" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 70 + ".b", "x\0y"])
def test_a_host_that_is_not_known_is_not_served(host, capsys):
    assert main(["serve", "--host", host]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "--host: host" in line and "is not known" in line


@pytest.mark.parametrize(
    "address", ["nonsense", "http://127.0.0.1:99999", "http://nowhere.invalid"]
)
def test_a_ray_cluster_that_is_nowhere_is_named(address):
    from flows.dispatch.ray_job import connect

    with pytest.raises(FoundryError, match="no Ray cluster takes jobs at") as raised:
        connect(address)
    assert len(str(raised.value).splitlines()) == 1


def test_loopback():
    assert all(map(is_loopback, ["127.0.0.1", "127.8.0.1", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.7", "lab.example"]))
