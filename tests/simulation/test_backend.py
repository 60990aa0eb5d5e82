"""A backend is chosen by trying, and a machine without any is told what to install."""

import pytest

from foundry_core.errors import FoundryError
from foundry_core.simulation import backend


@pytest.fixture
def unset(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv("FOUNDRY_GL_CHECKED", raising=False)
    return monkeypatch


def test_probe_tells_a_missing_backend():
    assert "invalid value" in backend.probe("vulkan")


def test_egl_comes_before_osmesa(unset):
    asked = []
    unset.setattr(backend, "probe", lambda name: asked.append(name) or "")
    assert backend._choose() == "egl"
    unset.setattr(backend, "probe", lambda name: "broken" if name == "egl" else "")
    assert backend._choose() == "osmesa"
    assert asked == ["egl"]


def test_the_users_choice_is_respected_and_tried_once(unset):
    asked = []
    unset.setattr(backend, "probe", lambda name: asked.append(name) or "")
    unset.setenv("MUJOCO_GL", "osmesa")
    assert backend._choose() == "osmesa"
    unset.setenv("FOUNDRY_GL_CHECKED", "osmesa")
    assert backend._choose() == "osmesa"
    assert asked == ["osmesa"]


def test_no_backend_names_the_packages(unset):
    unset.setattr(backend, "probe", lambda name: "cannot load library")
    with pytest.raises(FoundryError, match="egl: cannot load library; osmesa") as caught:
        backend._choose()
    assert "libegl1 libosmesa6" in caught.value.hint
