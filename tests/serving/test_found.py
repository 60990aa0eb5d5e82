"""What a served policy is called."""

from contextlib import ExitStack

from foundry_core.serving.found import find_policy
from foundry_core.store.manifest import MANIFEST, Artifact, content_digest

KEY = "ab" * 32


def test_a_folder_of_a_store_is_called_by_kind_and_twelve_digits(tmp_path):
    folder = tmp_path / KEY
    folder.mkdir()
    (folder / "policy.json").write_text("{}")
    artifact = Artifact(
        kind="train_vla",
        key=KEY,
        content=content_digest(()),
        input_content_key=KEY,
        code="4",
        code_fingerprint="f",
        recipe={},
        seed=0,
        sources={},
        inputs=(),
        files=(),
        metrics={},
        attempt="a1",
        run_id="r",
        created="2026-01-01T00:00:00+00:00",
        seconds=1.0,
    )
    with ExitStack() as stack:
        assert find_policy(str(folder), stack) == (folder, KEY)
        (folder / MANIFEST).write_text("[]")  # somebody else's file of that name
        assert find_policy(str(folder), stack) == (folder, KEY)
        (folder / MANIFEST).write_bytes(artifact.encoded())
        assert find_policy(str(folder), stack) == (folder, "train_vla/abababababab")
