"""Serving front-ends as an open set."""

import threading

import pytest

from foundry_core.errors import FoundryError
from foundry_core.serving.frontends import FRONTENDS

ECHO = """
from typing import Literal

from foundry_core.serving.frontends.base import FrontEnd


class EchoFrontEnd(FrontEnd):
    kind: Literal["echo"] = "echo"

    def serve(self, server, stop, ready):
        stop.wait()


FRONTEND = EchoFrontEnd
"""


def test_a_front_end_of_another_distribution_is_found(install_member):
    install_member("foundry.frontends", "echo", ECHO)
    assert "echo" in FRONTENDS.names()
    front_end = FRONTENDS.get("echo")(port=0)
    assert (front_end.host, front_end.port) == ("127.0.0.1", 0)
    stop = threading.Event()
    stop.set()
    front_end.serve(None, stop, print)
    with pytest.raises(FoundryError, match="unknown serving front-end 'eco'") as error:
        FRONTENDS.get("eco")
    assert "'echo'" in error.value.hint
