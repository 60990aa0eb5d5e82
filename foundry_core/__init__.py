"""The Foundry library: pipeline, store, lineage, data, models, training, evaluation, serving."""

import os
import sys

# Where a project's kinds lie, in every process of ours. Last on the path, as PYTHONPATH is not:
# what else that folder holds hides no package of ours, of others or of Python's.
sys.path += [
    folder
    for folder in os.environ.get("FOUNDRY_PATH", "").split(os.pathsep)
    if folder and folder not in sys.path
]

__version__ = "0.1.0"
