import pytest

from foundry_core.identity.code import CodeIndex, fingerprint

STAGE = '''
"""Doc."""
from pkg.helper import scale, Thing
from pkg import constants
import math


class Work:
    @staticmethod
    def run(ctx):
        """Docstring."""
        from pkg.late import late
        # a comment
        value = scale(ctx, factor=2)
        return late(value) + constants.OFFSET + Thing().go() + math.pi


def unrelated():
    return 1
'''
HELPER = """
FACTOR = 3
UNUSED = 9


def scale(x, factor=1):
    return inner(x) * factor * FACTOR


def inner(x: int) -> int:
    return x


class Base:
    def go(self):
        return 0


class Thing(Base):
    def other(self):
        return 5
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    folder = tmp_path / "pkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "stage.py").write_text(STAGE)
    (folder / "helper.py").write_text(HELPER)
    (folder / "late.py").write_text("def late(x):\n    return x + 1\n")
    (folder / "constants.py").write_text("OFFSET = 4\nOTHER = 5\n")
    return folder


def code_of(package):
    return fingerprint("pkg.stage", "Work.run", index=CodeIndex({"pkg": package.parent}))


def edit(package, file, old, new):
    path = package / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage.py", "factor=2", "factor=3"),
        ("helper.py", "return x\n", "return -x\n"),
        ("helper.py", "factor=1", "factor=7"),
        ("helper.py", "FACTOR = 3", "FACTOR = 4"),
        ("helper.py", "return 0", "return 1"),
        ("helper.py", "return 5", "return 6"),
        ("late.py", "x + 1", "x + 2"),
        ("constants.py", "OFFSET = 4", "OFFSET = 40"),
    ],
)
def test_what_can_change_the_result_changes_the_digest(package, file, old, new):
    before = code_of(package)
    edit(package, file, old, new)
    after = code_of(package)
    assert after.digest != before.digest
    assert [n for n in after.functions if after.functions[n] != before.functions.get(n)]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("stage.py", '"""Docstring."""', '"""Other words."""'),
        ("stage.py", "# a comment", "# another"),
        (
            "stage.py",
            "value = scale(ctx, factor=2)",
            "value = scale(\n            ctx, factor=2\n        )",
        ),
        ("stage.py", "def unrelated():\n    return 1", "def unrelated():\n    return 2"),
        ("helper.py", "UNUSED = 9", "UNUSED = 10"),
        ("helper.py", "x: int) -> int", "x: float) -> float"),
        ("constants.py", "OTHER = 5", "OTHER = 6"),
    ],
)
def test_what_cannot_does_not(package, file, old, new):
    before = code_of(package)
    edit(package, file, old, new)
    assert code_of(package).digest == before.digest


CONFIG = """

class Settings(Config):
    plain: int = 3
    bounded: int = Field(4, ge=1)
    needed: str


def read(settings: Settings):
    return Settings(needed="a")
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("plain: int = 3", 'plain: int = Field(3, description="of it")', True),
        ("Field(4, ge=1)", 'Field(4, ge=1, description="of " "it")', True),
        ("needed: str", 'needed: str = Field(description="of it")', True),
        ("plain: int = 3", 'plain: int = Field(2, description="of it")', False),
        ("Field(4, ge=1)", 'Field(4, ge=2, description="of it")', False),
        ("needed: str", 'needed: str = Field("", description="of it")', False),
        ("plain: int = 3", 'plain: int = other(3, description="of it")', False),
    ],
)
def test_a_description_of_a_setting_is_for_readers(package, old, new, same):
    with (package / "late.py").open("a") as late:
        late.write(CONFIG)
    edit(package, "late.py", "return x + 1", "return read(x)")
    before = code_of(package)
    assert "pkg.late:Settings" in before.functions
    edit(package, "late.py", old, new)
    assert (code_of(package).digest == before.digest) is same


def test_the_cache_gives_the_same_answer(package):
    assert code_of(package) == code_of(package)


def test_the_real_kinds_reach_their_helpers():
    found = fingerprint("tests.kinds.emit", "Emit.run").functions
    assert "tests.kinds.helper:render" in found
    assert "tests.kinds.helper:TERMINATOR" in found
