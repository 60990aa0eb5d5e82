"""What a LIBERO scene is: suite, physics, pictures, and what its numbers mean. Planning imports
this."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from foundry_core.config.suggest import nearest
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, DataContract
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config
from foundry_core.simulation.catalog import (
    ACTION_GRIPPER,
    ACTION_ROT6D,
    ACTION_XYZ,
    GRIPPER,
    ROT6D,
    XYZ,
)
from foundry_core.simulation.config import MAX_BUFFER
from foundry_core.simulation.libero import catalog

OPEN_M = 0.08
"""Between the finger tips of an open hand."""

VIEWS: Mapping[str, str] = {"scene": "agentview", "wrist": "robot0_eye_in_hand"}
"""Our names of LIBERO's two cameras, as the mapping `libero` gives them to its demonstrations."""

MEASURED: Mapping[str, FieldContract] = {
    XYZ: FieldContract(dims=3, quantity="position", unit="m", frame="world"),
    ROT6D: FieldContract(dims=6, quantity="rotation", form="rot6d_rows", frame="world"),
    GRIPPER: FieldContract(dims=1, quantity="gripper", unit="m", closed=0.0, open=OPEN_M),
}
COMMANDED: Mapping[str, FieldContract] = {
    ACTION_XYZ: MEASURED[XYZ],
    ACTION_ROT6D: MEASURED[ROT6D],
    ACTION_GRIPPER: MEASURED[GRIPPER],
}


class LiberoRender(Config):
    """What the cameras see. Collection and evaluation must agree on it.

    style "shipped" draws as LIBERO does: shadows, reflections, four samples a pixel. "plain" leaves
    them out and averages supersample² pixels: half the time and less on a software rasteriser.
    """

    cameras: tuple[Literal["scene", "wrist"], ...] = Field(
        ("scene", "wrist"),
        min_length=1,
        description="which ones draw: from the scene, from the wrist",
    )
    size: int = Field(128, ge=8, description="pixels, square")
    style: Literal["shipped", "plain"] = Field(
        "shipped",
        description="shipped: as LIBERO draws; plain: no shadows and reflections, half the time "
        "and less",
    )
    supersample: int = Field(2, ge=1, le=8, description="of style plain")
    decimate: int | None = Field(
        None,
        ge=4,
        le=64,
        description="vertices of a visual mesh along its longest side; null draws them as they are",
    )
    mirror: bool = Field(
        False,
        description="left and right swapped, as policies see them whose pictures were turned by "
        "180 degrees from LIBERO's files",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.pixels > MAX_BUFFER:
            raise ValueError(f"{self.pixels} pixels exceed {MAX_BUFFER}")
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"cameras {self.cameras} name one twice")
        return self

    @property
    def factor(self) -> int:
        """Drawn pixels per pixel of a picture."""
        return self.supersample if self.style == "plain" else 1

    @property
    def pixels(self) -> int:
        return self.size * self.factor

    def contract(self) -> dict[str, CameraContract]:
        how = [f"MuJoCo, {self.style}"]
        if self.factor > 1:
            how.append(f"averaged over {self.factor}x{self.factor}")
        if self.decimate:
            how.append(f"meshes of {self.decimate} parts")
        if self.mirror:
            how.append("mirrored")
        one = CameraContract(drawn=(self.size, self.size), renderer=", ".join(how))
        return dict.fromkeys(self.cameras, one)


class LiberoScene(Config):
    """suite and perturbation: which problems. fast_step: LIBERO's controller without the passes of
    the physics that it repeats: the same states to the last bit in half the time."""

    suite: catalog.Suite = Field("libero_object", description="which problems")
    perturbation: catalog.Perturbation | None = Field(None, description="of LIBERO-PRO")
    fast_step: bool = Field(
        False,
        description="the controller without what it computes repeatedly: equal states to the last "
        "bit, half the time",
    )
    render: LiberoRender = Field(LiberoRender(), description="what the cameras see")

    @field_validator("perturbation", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        return None if value == "none" else value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        suites = catalog.PERTURBED.get(self.perturbation or "", (self.suite,))
        if self.suite not in suites:
            raise ValueError(f"{self.perturbation!r} is complete for {', '.join(suites)} only")
        return self

    def problems(self) -> Mapping[str, catalog.LiberoTask]:
        return catalog.tasks(self.suite, self.perturbation)

    def problem(self, name: str) -> catalog.LiberoTask:
        """`name`, or `name@perturbation` for a task as that perturbation has it, whatever the
        scene's own. FoundryError with the nearest name where there is none of this name."""
        plain, _, perturbation = name.partition("@")
        if perturbation:
            return replace(self._perturbed(perturbation).problem(plain), name=name)
        found = self.problems()
        if name not in found:
            folder = catalog.folder_name(self.suite, self.perturbation)
            raise FoundryError(f"{folder} has no task {name!r}", nearest(name, found))
        return found[name]

    def _perturbed(self, perturbation: str) -> "LiberoScene":
        """FoundryError where the package has no such perturbation of the suite whole."""
        known = [one for one, suites in catalog.PERTURBED.items() if self.suite in suites]
        if perturbation not in known:
            raise FoundryError(
                f"{self.suite} has no perturbation {perturbation!r}", nearest(perturbation, known)
            )
        changes = {"perturbation": perturbation}
        return LiberoScene(**{n: getattr(self, n) for n in LiberoScene.model_fields} | changes)

    def data_contract(self) -> DataContract:
        """Of demonstrations that are recorded in it."""
        return DataContract(
            hz=catalog.CONTROL_HZ,
            cameras=self.render.contract(),
            fields={**MEASURED, **COMMANDED},
        )
