"""What the troubleshooting page quotes is what the code says."""

import re

import pytest

from tests.docs.messages import messages
from tests.docs.pages import DOCS

PAGE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)


def flat(text: str) -> str:
    """Without the places of values, so that any way to put them counts."""
    return re.sub(r"[…'\"\s]+", " ", text).strip()


def test_the_page_quotes_many():
    assert len(QUOTED) > 30


@pytest.mark.parametrize("quoted", QUOTED)
def test_the_code_says_it(quoted):
    assert any(flat(quoted) in flat(message) for message in messages()), quoted
