"""The Foundry library: pipeline, store, lineage, data, models, training, evaluation, serving."""

__version__ = "0.1.0"
