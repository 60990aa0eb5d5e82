import math
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from foundry_core.config.canonical import Location, OmitWhen, canonical, digest
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
leaves |= st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=4), v, max_size=3)
)


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_key_order_does_not_matter(value):
    assert digest(value) == digest(reordered(value))


@given(st.integers(-(2**53), 2**53))
def test_equal_numbers_have_one_form(number):
    assert digest({"a": number}) == digest({"a": float(number)})


def test_booleans_are_not_numbers():
    assert digest(True) != digest(1)


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), b"x", {1: 2}, print, {1, 2}])
def test_unstable_values_are_refused(value):
    with pytest.raises(FoundryError):
        canonical({"field": value} if not isinstance(value, dict) else value)


class Old(Config):
    width: int = 1
    where: Location[str] = ""


class New(Config):
    width: int = 1
    where: Location[str] = ""
    bias: Annotated[bool, OmitWhen(False)] = False


class NewDefault(Config):
    width: int = 1
    bias: Annotated[bool, OmitWhen(False)] = True


def test_an_added_field_keeps_old_keys_until_it_is_used():
    assert digest(Old()) == digest(New())
    assert digest(New(bias=True)) != digest(Old())
    assert digest(NewDefault()) != digest(Old())


def test_false_is_not_zero_to_an_added_field():
    class Added(Config):
        rate: Annotated[bool | int, OmitWhen(0)] = 0

    assert canonical(Added()) == {}
    assert canonical(Added(rate=False)) == {"rate": False}


def test_fields_that_identity_and_stage_would_see_differently_are_refused():
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

    class Hidden(Config):
        n: int = Field(1, exclude=True)

    class Marked(Config):
        place: Location[str] | None = None

    for model, message in (
        (Open(more=1), "Open.more is no declared field"),
        (Hidden(n=7), "Hidden.n is excluded"),
        (Marked(), "Marked.place: Location"),
    ):
        with pytest.raises(FoundryError, match=message):
            canonical(model, type(model).__name__)


def test_locations_do_not_count():
    assert digest(Old(where="/a")) == digest(Old(where="/b"))
