"""A local Ray listens on every address of the machine, and takes calls of its own process alone."""

import os
import subprocess
import sys

import pytest

OWNER = """
import os, subprocess, sys
from foundry_core.parallel import ray_map, ray_session
with ray_session(1):
    import ray
    assert list(ray_map(abs, [-1], workers=1)) == [1]
    address = ray.get_runtime_context().gcs_address
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    print(subprocess.run([sys.executable, "-c", sys.argv[1], address], env=kept).returncode)
"""
STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
ray.get(ray.remote(lambda: 1).remote())
"""


@pytest.mark.slow("starts Ray")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("settings", "refused"), [({}, True), ({"RAY_AUTH_MODE": "disabled"}, False)]
)
def test_a_stranger_is_refused(settings, refused):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_A")}
    done = subprocess.run(
        [sys.executable, "-c", OWNER, STRANGER], env=kept | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip() != "0") is refused, done.stderr
