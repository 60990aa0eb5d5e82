"""The notebooks of the documentation, executed from first cell to last in an empty home."""

import json
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY
from tests.docs.pages import DOCS

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def test_they_are_stored_without_outputs():
    assert [path.stem for path in NOTEBOOKS] == ["data", "lineage"]
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs") and not cell.get("execution_count"), path.name


@pytest.mark.slow("a run of a pipeline in each notebook")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    for variable in ("FOUNDRY_HOME", "FOUNDRY_STORE", "FOUNDRY_KINDS", "PREFECT_API_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    kernel = tmp_path / "kernels" / "here"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    declared = {"argv": argv, "display_name": "here", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(declared))
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="here", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    said = "".join(str(out.get("data", {}).get("text/plain", "")) for out in shown)
    assert "succeeded" in said
    if path.stem == "data":
        assert any("image/png" in out.get("data", {}) for out in shown)
    else:
        assert "recipe.training.steps" in said and "reuse" in said
