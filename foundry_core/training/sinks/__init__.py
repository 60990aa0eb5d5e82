"""Metric sinks: an open set of places that see a training's curve while it grows.

They are resources: none of them changes a result. The record of a run is records/metrics.jsonl,
which the loop writes itself, whatever sinks there are.
"""

from foundry_core.config.registry import Registry
from foundry_core.training.sinks.base import MetricSink

SINKS: Registry[type[MetricSink]] = Registry(
    group="foundry.metric_sinks",
    package="foundry_core.training.sinks",
    attribute="SINK",
    noun="metric sink",
)
