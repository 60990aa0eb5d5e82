"""What an evaluation's resources may be, and which of them move the last bits of its results."""

import pytest

from foundry_core.errors import FoundryError
from tasks.evaluate import STAGE

SERVED = STAGE.Recipe(served={"protocol": "openpi", "policy": "theirs"})


def test_compiled_chunks_are_another_way_to_round():
    plain, compiled = STAGE.Resources(), STAGE.Resources(compile=True)
    assert STAGE.numerics(plain) == {"threads": "1"}
    assert STAGE.numerics(compiled) == {"threads": "1", "compiled": "yes"}
    assert STAGE.numerics(STAGE.Resources(env_workers=4)) == STAGE.numerics(plain)


def test_what_is_served_is_compiled_there():
    with pytest.raises(FoundryError, match="loaded here"):
        STAGE.check_resources(SERVED, STAGE.Resources(compile=True, server="127.0.0.1:8000"))
    STAGE.check_resources(SERVED, STAGE.Resources(server="127.0.0.1:8000"))
    STAGE.check_resources(STAGE.Recipe(), STAGE.Resources(compile=True))
