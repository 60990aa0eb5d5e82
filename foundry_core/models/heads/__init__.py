"""Action heads: an open set. One file per head, of its config alone; networks/ holds the modules.

A head of another distribution may be one file: its config and, imported by `build`, its module.
"""

from foundry_core.config.registry import Registry
from foundry_core.models.heads.base import HeadConfig

HEADS: Registry[type[HeadConfig]] = Registry(
    group="foundry.heads",
    package="foundry_core.models.heads",
    attribute="HEAD",
    noun="action head",
)
