"""What each ServiceAccount of ours may do: the chart's Roles as a table (docs/rbac.md has the reasons)."""

from dataclasses import dataclass
from enum import StrEnum


class Place(StrEnum):
    """A namespace by its part."""

    RELEASE = "release"
    """Of bridge's own Deployments and the Lease."""
    RUNS = "runs"
    """Of records, Workflows and WorkflowTemplates."""
    BRIGADE = "brigade"
    CLUSTER = "cluster"
    """None."""


@dataclass(frozen=True)
class Account:
    """A ServiceAccount and where it lives."""

    name: str
    home: Place


GATEWAY = Account("bridge-gateway", Place.RELEASE)
CONTROLLER = Account("bridge-controller", Place.RELEASE)
STEP = Account("bridge-step", Place.RUNS)
NATIVE = Account("bridge-native", Place.RUNS)
ACCOUNTS = (GATEWAY, CONTROLLER, STEP, NATIVE)


@dataclass(frozen=True)
class Right:
    """Verbs on one resource in one place."""

    account: Account
    place: Place
    resource: str
    """With its subresource: `pods/log`."""
    verbs: tuple[str, ...]
    group: str = ""
    name: str = ""
    """Of the one object; empty is all."""

    def __str__(self) -> str:
        """As RBAC names the resource: `workflows.argoproj.io`."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


_ARGO = "argoproj.io"
_LEASES = "coordination.k8s.io"

RIGHTS = (
    Right(GATEWAY, Place.RUNS, "secrets", ("get", "list", "watch", "create", "patch")),
    Right(GATEWAY, Place.RUNS, "workflowtemplates", ("list", "watch"), _ARGO),
    Right(GATEWAY, Place.RUNS, "pods", ("get",)),
    Right(GATEWAY, Place.BRIGADE, "secrets", ("get", "list", "watch")),
    Right(GATEWAY, Place.BRIGADE, "pods", ("get", "list")),
    Right(GATEWAY, Place.BRIGADE, "pods/log", ("get",)),
    Right(GATEWAY, Place.CLUSTER, "tokenreviews", ("create",), "authentication.k8s.io"),
    Right(CONTROLLER, Place.RELEASE, "leases", ("create",), _LEASES),
    Right(CONTROLLER, Place.RELEASE, "leases", ("get", "patch"), _LEASES, "bridge-controller"),
    Right(CONTROLLER, Place.RUNS, "secrets", ("get", "list", "watch", "patch", "delete")),
    Right(CONTROLLER, Place.RUNS, "workflowtemplates", ("get", "list", "watch"), _ARGO),
    Right(CONTROLLER, Place.RUNS, "workflows", ("get", "list", "watch", "create", "patch", "delete"), _ARGO),
    Right(CONTROLLER, Place.BRIGADE, "secrets", ("get", "list", "watch", "create", "patch", "delete")),
    Right(CONTROLLER, Place.BRIGADE, "pods", ("get", "list", "watch", "delete")),
    Right(CONTROLLER, Place.BRIGADE, "pods/log", ("get",)),
    Right(CONTROLLER, Place.BRIGADE, "persistentvolumeclaims", ("get", "delete")),
    Right(STEP, Place.RUNS, "secrets", ("get", "patch")),
    Right(STEP, Place.RUNS, "workflowtemplates", ("get",), _ARGO),
    Right(STEP, Place.RUNS, "workflows", ("get",), _ARGO),
    Right(STEP, Place.RUNS, "workflowtaskresults", ("create", "patch"), _ARGO),
    Right(STEP, Place.BRIGADE, "secrets", ("get", "list", "create", "patch")),
    Right(STEP, Place.BRIGADE, "pods", ("get", "list", "delete")),
    Right(STEP, Place.BRIGADE, "pods/log", ("get",)),
    Right(STEP, Place.BRIGADE, "persistentvolumeclaims", ("get", "list")),
    Right(NATIVE, Place.RUNS, "workflowtaskresults", ("create", "patch"), _ARGO),
)
"""All that is needed, and all that the chart grants."""


def rights_of(account: Account, rights: tuple[Right, ...] = RIGHTS) -> tuple[Right, ...]:
    """Those of one account."""
    return tuple(right for right in rights if right.account == account)


FOR_TOKENS = tuple(
    right
    for right in rights_of(GATEWAY)
    if (right.place, right.resource) in {(Place.CLUSTER, "tokenreviews"), (Place.RUNS, "pods")}
)
"""By which the gateway knows a step that asks for its run's GitHub token; the chart can leave them out."""

FORBIDDEN = (
    Right(NATIVE, Place.RUNS, "secrets", ("get", "list")),
    Right(NATIVE, Place.BRIGADE, "secrets", ("get", "list")),
)
"""What code of other people must not be able to do."""
