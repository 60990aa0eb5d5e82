"""However a lab's code reaches something, an edit of it changes the stage's identity."""

import pytest

from foundry_core.errors import FoundryError
from foundry_core.identity.code import CodeIndex, fingerprint

STAGE = """
class K:
    @staticmethod
    def run(ctx):
        return {body}
"""
MODULE = "def f():\n    return 11\n"
READ = "def f():\n    return (Path(__file__).parents[1] / 'data' / 'd.txt').read_text()\n"
OTHER = "def f():\n    return 0\n"


def kind(body, before=""):
    return before + STAGE.format(body=body)


# name → (lab.k, other files of the lab); 11 stands where the edit goes.
CASES = {
    "a helper": (kind("f()", MODULE), {}),
    "run of a base class": (
        "class B:\n    @staticmethod\n    def run(ctx):\n        return 11\nclass K(B): pass\n",
        {},
    ),
    "run from a function": (f"{MODULE}class K:\n    run = staticmethod(f)\n", {}),
    "a class method": (
        "class K:\n    @classmethod\n    def run(cls, ctx):\n        return cls.h()\n"
        "    @staticmethod\n    def h():\n        return 11\n",
        {},
    ),
    "a subscript": (kind("T['a']()", f"T = {{}}\n{MODULE}T['a'] = f\n"), {}),
    "a registry": (
        kind("T['f']()", f"T = {{}}\ndef r(f):\n    T['f'] = f\n    return f\n@r\n{MODULE}"),
        {},
    ),
    "a method call": (kind("T", "T = []\nT.append(11)\n"), {}),
    "an attribute": (kind("C.x", "class C: pass\nC.x = 11\n"), {}),
    "an augmented subscript": (kind("T", "T = [1]\nT[0] += 11\n"), {}),
    "an augmented name": (kind("T", "T = 1\nT += 11\n"), {}),
    "a loop": (kind("T", "T = 0\nfor i in range(11):\n    T += i\n"), {}),
    "a with": (kind("T", "with open('11') as T:\n    pass\n"), {}),
    "a function in a with": (kind("f()", "with s():\n    def f():\n        return 11\n"), {}),
    "a function in a loop": (kind("f()", "for i in [1]:\n    def f():\n        return 11\n"), {}),
    "a match": (kind("T", "match 11:\n    case T:\n        pass\n"), {}),
    "an import in a with": (
        kind("f()", "with s():\n    from lab.m import f\n"),
        {"m.py": MODULE},
    ),
    "a walrus": (kind("T", "print(T := 11)\n"), {}),
    "a condition": (kind("T", "FLAG = 11\nif FLAG:\n    T = 1\nelse:\n    T = 2\n"), {}),
    "a global": (kind("T", "T = 1\ndef s():\n    global T\n    T = 11\ns()\n"), {}),
    "no __init__": (kind("m.f()", "from lab.sub import m\n"), {"sub/m.py": MODULE}),
    "a star": (kind("f()", "from lab.m import *\n"), {"m.py": MODULE}),
    "a star re-exported": (
        kind("f()", "from lab.sub import f\n"),
        {"sub/__init__.py": "from lab.sub.m import *\n", "sub/m.py": MODULE},
    ),
    "a module re-exported": (
        kind("u.f()", "from lab.sub import u\n"),
        {"sub/__init__.py": "import lab.m as u\n", "m.py": MODULE},
    ),
    "a package that imports from itself": (
        kind("sub.m.f()", "import lab.sub as sub\n"),
        {"sub/__init__.py": "from . import m\n", "sub/m.py": MODULE},
    ),
    "getattr on re-exports": (
        kind("getattr(sub, 'f')()", "import lab.sub as sub\n"),
        {"sub/__init__.py": "from lab.m import f\n", "m.py": MODULE},
    ),
    "globals": (kind("globals()['f']()", MODULE), {}),
    "import_module": (
        kind("import_module('lab.m').f()", "from importlib import import_module\n"),
        {"m.py": MODULE},
    ),
    "the first of two imports": (
        kind(
            "f()", "try:\n    from lab.m import f\nexcept ImportError:\n    from lab.n import f\n"
        ),
        {"m.py": MODULE, "n.py": OTHER},
    ),
    "an import that is overridden": (
        kind("g()", "from lab.m import f\ng = f\ndef f():\n    return 0\n"),
        {"m.py": MODULE},
    ),
    "one name from two modules": (
        kind(
            "C",
            "class C:\n    def a(self):\n        from lab.m import f\n        return f()\n"
            "    def b(self):\n        from lab.n import f\n        return f()\n",
        ),
        {"m.py": MODULE, "n.py": OTHER},
    ),
    "a module's __getattr__": (
        kind("sub.f()", "import lab.sub as sub\n"),
        {
            "sub/__init__.py": "def __getattr__(n):\n    from lab import m\n    return m.f\n",
            "m.py": MODULE,
        },
    ),
    "a package beside a module": (
        kind("f()", "from lab.m import f\n"),
        {"m/__init__.py": MODULE, "m.py": OTHER},
    ),
    "singledispatch": (
        kind("f(1)", "@singledispatch\ndef f(x): ...\n@f.register\ndef _(x):\n    return 11\n"),
        {},
    ),
    "__init_subclass__": (
        kind(
            "B.R['C']",
            "class B:\n    R = {}\n    def __init_subclass__(cls):\n        B.R[1] = cls\n"
            "class C(B):\n    x = 11\n",
        ),
        {},
    ),
    "an import for its effect": (
        kind("R['f']()", "from lab.r import R\nimport lab.m\n"),
        {"r.py": "R = {}\n", "m.py": f"from lab.r import R\n{MODULE}R['f'] = f\n"},
    ),
    "a patch in a package": (
        kind("m.X", "from lab.sub import m\n"),
        {"sub/__init__.py": "from lab.sub import m\nm.X = 11\n", "sub/m.py": "X = 0\n"},
    ),
    "a file beside the code": (
        kind("(Path(__file__).parent / 'd.txt').read_text()", "from pathlib import Path\n"),
        {"d.txt": "11"},
    ),
    "a file above the code": (
        kind("f()", "from lab.sub.m import f\n"),
        {"sub/m.py": f"from pathlib import Path\n{READ}", "data/d.txt": "11"},
    ),
    "a file above the code, by os.path": (
        kind("f()", "from lab.sub.m import f\n"),
        {
            "sub/m.py": "from os.path import *\ndef f():\n"
            "    return open(join(dirname(__file__), '..', 'data', 'd.txt')).read()\n",
            "data/d.txt": "11",
        },
    ),
    "a file beside another module": (
        kind("(Path(lab.sub.__file__).parent / 'd.txt').read_text()", "import lab.sub\n"),
        {"sub/__init__.py": "", "sub/d.txt": "11"},
    ),
    "a resource of another package, by name": (
        kind("f()", "from lab.sub.m import f\n"),
        {
            "sub/m.py": "from importlib.resources import files\n"
            "def f():\n    return files('lab.data')\n",
            "data/d.txt": "11",
        },
    ),
    "a resource of another package": (
        kind("f()", "from lab.sub.m import f\n"),
        {
            "sub/m.py": "from importlib import resources\nfrom lab import data\n"
            "def f():\n    return resources.files(data)\n",
            "data/__init__.py": "",
            "data/d.txt": "11",
        },
    ),
    "an annotation that is enforced": (
        kind("f('3')", "@validate_call\ndef f(x: t11):\n    return x\n"),
        {},
    ),
    "an annotation that is read": (
        kind("f.__annotations__", "def f(x: 'a11'):\n    return x\n"),
        {},
    ),
    "an annotation as text": (
        kind("M(x=3)", "A = Annotated[int, After(11)]\nclass M(BaseModel):\n    x: 'A'\n"),
        {},
    ),
    "a docstring that is read": (kind("f.__doc__", "def f():\n    'prompt 11'\n"), {}),
    "the module's docstring": ("'prompt 11'\n" + kind("__doc__"), {}),
    "a metaclass": (kind("C", "class M(type):\n    x = 11\nclass C(metaclass=M): pass\n"), {}),
    "a byte order mark": ("\ufeff" + kind("f()", MODULE), {}),
}


@pytest.fixture
def digest_of(tmp_path, monkeypatch):
    """The digest of lab.k:K.run with these files."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))

    def of(files):
        for name, text in files.items():
            path = tmp_path / "lab" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        index = CodeIndex({"lab": tmp_path})
        classes = [("lab.k", name) for name in ("R", "Inner") if f"class {name}" in files["k.py"]]
        return fingerprint("lab.k", "K.run", methods_of=classes, index=index).digest

    return of


@pytest.mark.parametrize("name", CASES)
def test_an_edit_is_seen(name, digest_of):
    code, others = CASES[name]
    files = {"k.py": code, **others}
    edited = {file: text.replace("11", "22") for file, text in files.items()}
    assert edited != files
    assert digest_of(files) != digest_of(edited)


RECIPE = """
class Inner(Config):
    scale: int = 2
    def times(self):
        return self.scale * 3

class R(Recipe):
    n: int = 5
    inner: Inner = Inner()
    def total(self):
        return self.n
"""


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("self.n\n", "self.n + 1\n", True),
        ("* 3", "* 4", True),
        ("int = 5", "int = 6", False),
        ("    n: int", "    m: int = 0\n    n: int", False),
    ],
)
def test_a_recipes_methods_are_code_and_its_fields_are_not(digest_of, old, new, seen):
    code = kind("ctx.recipe.total()", RECIPE)
    assert (digest_of({"k.py": code}) != digest_of({"k.py": code.replace(old, new)})) == seen


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a", "# b"),
        ("x: int = 1", "x: float = 1"),
        ('"text"', 'u"text"'),
        ("        pass\n", ""),
        ("if TYPE_CHECKING:\n    import os", "if TYPE_CHECKING:\n    import sys"),
        ("import json", "import json\nimport math"),
        ("def unused():\n    return 1", "def unused():\n    return 2"),
    ],
)
def test_what_changes_nothing_is_not(digest_of, old, new):
    code = kind(
        "f()",
        "import json\nif TYPE_CHECKING:\n    import os\ndef unused():\n    return 1\n"
        'def f():\n    x: int = 1  # a\n    def g():\n        "Says."\n        pass\n'
        '    return "text"\n',
    )
    assert old in code
    assert digest_of({"k.py": code}) == digest_of({"k.py": code.replace(old, new)})


def test_code_that_cannot_be_found_is_refused(digest_of):
    with pytest.raises(FoundryError, match=r"lab\.k:K.run cannot be read"):
        digest_of({"k.py": "K = make()\n".replace("K", "L")})


def test_what_else_was_asked_changes_nothing(tmp_path, monkeypatch):
    """The index of a plan is asked for many kinds, that of a stage's process for one."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "k.py").write_text(kind("f()", "from two.m import f\n"))
        monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "two" / "m.py").write_text(MODULE)
    alone, after = CodeIndex({"one": tmp_path}), CodeIndex({"one": tmp_path})
    fingerprint("two.k", "K.run", index=after)
    one, two = (fingerprint("one.k", "K.run", index=index) for index in (after, alone))
    assert one == two
