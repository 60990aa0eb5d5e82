"""An open set of a lab's own, written to a folder: shapes, one of which a recipe of kind `cut`
chooses. Its outside member comes with an installed distribution."""

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

from foundry_core.config import registry

LAB = {
    "__init__.py": "",
    "base.py": """
from typing import Annotated
from foundry_core.config.registry import OneOf, Registry
from foundry_core.pipeline.stage import Config

class ShapeConfig(Config):
    def area(self):
        raise NotImplementedError

SHAPES = Registry(
    group="toy.shapes", package="toy_lab.shapes", attribute="SHAPE", noun="shape", dashes=True
)
Shape = Annotated[ShapeConfig, OneOf(SHAPES, "kind")]
""",
    "helper.py": "def squared(x):\n    return x * x\n",
    "shapes/__init__.py": "",
    "shapes/flat_square.py": """
from typing import Literal
from pydantic import Field
from toy_lab.base import ShapeConfig
from toy_lab.helper import squared

class Square(ShapeConfig):
    kind: Literal["flat-square"] = "flat-square"
    width: int = Field(2, ge=1, description="of a side")

    def area(self):
        return squared(self.width)

SHAPE = Square
""",
    "shapes/dot.py": """
from typing import Literal
from toy_lab.base import ShapeConfig

class Dot(ShapeConfig):
    kind: Literal["dot"] = "dot"
    weight: int = 1

    def area(self):
        return 0

SHAPE = Dot
""",
    "cut.py": """
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage
from toy_lab.base import Shape

class CutRecipe(Recipe):
    shape: Shape
    more: tuple[Shape, ...] = ()
    spare: Shape | None = None

class Cut(Stage):
    kind = "cut"
    output = ArtifactType.TEXT
    Recipe = CutRecipe

    @staticmethod
    def run(ctx):
        (ctx.out / "area").write_text(str(ctx.recipe.shape.area()))
        return {}

STAGE = Cut
""",
}
OUTSIDE = {
    "toy_outside/__init__.py": "",
    "toy_outside/pi.py": "PI = 3\n",
    "toy_outside/circle.py": """
from typing import Literal
from toy_lab.base import ShapeConfig
from toy_outside.pi import PI

class Circle(ShapeConfig):
    kind: Literal["circle"] = "circle"
    radius: int = 1

    def area(self):
        return PI * self.radius**2

SHAPE = Circle
""",
}


def install(folder: Path, files: Mapping[str, str], entry_points: str = "") -> None:
    """Writes a distribution into a folder on sys.path and makes importlib look again."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if entry_points:
        info = folder / f"{next(iter(files)).partition('/')[0]}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Name: {info.name.partition('-')[0]}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(entry_points)
    forget()


def install_lab(folder: Path) -> None:
    install(folder, {f"toy_lab/{name}": text for name, text in LAB.items()})


def install_outside(folder: Path) -> None:
    install(folder, OUTSIDE, "[toy.shapes]\ncircle = toy_outside.circle\n")


def forget() -> None:
    """What this process knows of packages on its path."""
    importlib.invalidate_caches()
    registry._entry_points.cache_clear()
    registry._modules.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0].startswith("toy_")]:
        del sys.modules[name]
