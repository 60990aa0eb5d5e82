"""Front-ends: an open set of protocols by which a robot or a benchmark asks a policy for actions.

Every one of them drives the same foundry_core.serving.server.PolicyServer.
"""

from foundry_core.config.registry import Registry
from foundry_core.serving.frontends.base import FrontEnd

FRONTENDS: Registry[type[FrontEnd]] = Registry(
    group="foundry.frontends",
    package="foundry_core.serving.frontends",
    attribute="FRONTEND",
    noun="serving front-end",
)
