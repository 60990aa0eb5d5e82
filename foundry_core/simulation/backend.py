"""MuJoCo without a display: its OpenGL backend, chosen before it is imported, pictures, faults.

MuJoCo reads MUJOCO_GL once, while it is imported; a library that is missing shows only when the
first context is made, and a broken driver may take the process down. So the choice is tried in a
child process (0.5 s, once per process tree: the variable is inherited by workers).
"""

import atexit
import logging
import os
import subprocess
import sys
import weakref
from functools import cache
from types import ModuleType
from typing import Any

from foundry_core.errors import FoundryError

HEADLESS = ("egl", "osmesa")
_PROBE = """
import importlib
context = importlib.import_module("mujoco.{backend}").GLContext(16, 16)
context.make_current()
context.free()
"""
_CHOSEN = "FOUNDRY_GL_CHECKED"


class SimulationFault(RuntimeError):
    """The simulator, not the policy, failed: unstable physics or a target that is no number."""


@cache
def load_mujoco() -> ModuleType:
    """The mujoco package with a working headless renderer.

    MUJOCO_GL is respected where it is set; else EGL, else OSMesa. FoundryError if none works.
    """
    backend = _choose()
    os.environ["MUJOCO_GL"] = os.environ[_CHOSEN] = backend
    # One simulator per worker, one worker per core: the rasteriser's own threads only contend.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    import mujoco
    from mujoco import gl_context

    context = gl_context.GLContext
    if backend in HEADLESS and (context is None or backend not in context.__module__):
        raise FoundryError(
            f"mujoco was imported before the simulator chose MUJOCO_GL={backend}",
            f"import foundry_core.simulation first, or export MUJOCO_GL={backend}",
        )
    # Otherwise every warning is appended to MUJOCO_LOG.TXT in the working directory.
    mujoco.set_mju_user_warning(logging.getLogger(__name__).warning)
    return mujoco


def _choose() -> str:
    wanted = os.environ.get("MUJOCO_GL", "").lower()
    if wanted and os.environ.get(_CHOSEN) == wanted:
        return wanted
    failures = []
    for backend in (wanted,) if wanted else HEADLESS:
        reason = probe(backend)
        if not reason:
            return backend
        failures.append(f"{backend}: {reason}")
    raise FoundryError(
        f"MuJoCo cannot draw without a display ({'; '.join(failures)})",
        "install OpenGL's off-screen libraries: apt-get install libegl1 libosmesa6"
        + (f", or unset MUJOCO_GL={wanted}" if wanted else ""),
    )


def probe(backend: str) -> str:
    """ "" if a context of this backend can be made here, else the reason in one line."""
    environment = {**os.environ, "MUJOCO_GL": backend}
    environment.pop("PYOPENGL_PLATFORM", None)
    try:
        child = subprocess.run(
            [sys.executable, "-c", _PROBE.format(backend=backend)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return "no answer within 120 s"
    if child.returncode == 0:
        return ""
    lines = child.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {child.returncode}"


def check_stable(mujoco: ModuleType, data: Any, where: str) -> None:
    """MuJoCo resets an exploding simulation silently and only counts it: then a SimulationFault."""
    kinds = mujoco.mjtWarning
    for kind in (kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC):
        if data.warning[kind].number:
            raise SimulationFault(f"{where}: the physics became unstable ({kind.name})")


_SHARED: weakref.WeakValueDictionary[tuple[str, int], Any] = weakref.WeakValueDictionary()


def shared_renderer(mujoco: ModuleType, name: str, model: Any, pixels: int) -> Any:
    """This process's `offscreen_renderer` of all models of that name, which have the same meshes
    and textures: each costs 0.5 s and 50 MB. It lives as long as somebody holds it; `draw` says
    whose state it shows."""
    renderer = _SHARED.get((name, pixels))
    if renderer is None:
        renderer = _SHARED[name, pixels] = offscreen_renderer(mujoco, model, pixels)
    return renderer


def draw(renderer: Any, model: Any, data: Any, camera: str) -> Any:
    """uint8 [H, W, 3] of a model that the renderer was made for, or one of the same meshes. A
    renderer that fails is given to nobody any more: whoever tries again gets another."""
    renderer._model = model
    try:
        renderer.update_scene(data, camera=camera)
        return renderer.render()
    except Exception:
        for name in [name for name, one in _SHARED.items() if one is renderer]:
            del _SHARED[name]
        raise


def offscreen_renderer(
    mujoco: ModuleType, model: Any, pixels: int, *, as_shipped: bool = False
) -> Any:
    """A renderer of square pictures. as_shipped: with the shadows, reflections and samples that the
    model asks for."""
    model.vis.global_.offwidth = model.vis.global_.offheight = pixels
    if not as_shipped:
        model.vis.quality.offsamples = 0
    renderer = mujoco.Renderer(model, pixels, pixels)
    # Shadows alone cost 5x the rest on a software rasteriser; the flags outlive update_scene.
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
        renderer.scene.flags[flag] = int(as_shipped)
    # MuJoCo ends EGL at exit; contexts must be gone by then, hooks run last in, first out.
    reference = weakref.ref(renderer)
    atexit.register(lambda: (r := reference()) is not None and r.close())
    return renderer
