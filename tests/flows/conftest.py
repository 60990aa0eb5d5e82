"""What several files of this folder start from."""

import pytest


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    """One home for all tests of a file: what their pipelines have in common is built once."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDRY_HOME", str(home))
        for name in ("FOUNDRY_STORE", "FOUNDRY_KINDS", "PREFECT_API_URL"):
            patch.delenv(name, raising=False)
        yield home
