"""The place of a step's process. Light: of the two worlds only the one that is meant is imported."""

import os
from collections.abc import Mapping

from bridge.errors import BadSettings
from bridge.wiring.places import NO_FLAGS, ClusterFlags, Place, in_cluster, which_of


def place_of(
    flags: ClusterFlags = NO_FLAGS,
    environment: Mapping[str, str] | None = None,
) -> Place:
    """Read the variables. Raises BadSettings naming the one that is missing or wrong, and Misconfigured."""
    given = os.environ if environment is None else environment
    which = which_of(given)
    if not which.by_hand and not which.step:
        raise BadSettings("BRIDGE_STEP has to name the step of the run; the template sets it")
    if in_cluster(given, flags):
        from bridge.wiring.cluster_steps import cluster_place  # noqa: PLC0415 - one machine needs no urllib3

        return cluster_place(which, flags, given)
    from bridge.wiring.local_steps import local_place  # noqa: PLC0415 - a cluster needs no database

    return local_place(which, given)
