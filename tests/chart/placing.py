"""The chart's three namespaces on the tests' API server, and the chart's objects in them."""

from dataclasses import dataclass
from typing import Any

from tests.chart.helming import rendered
from tests.cluster.client import KINDS, ApiError, Client

FIELD_MANAGER = "tests"


@dataclass(frozen=True)
class Place:
    """Where a release, its Workflows and Brigade are."""

    home: str
    runs: str
    brigade: str

    def values(self, **more: Any) -> dict[str, Any]:
        """The chart's values for it."""
        known = {"workflows": {"namespace": self.runs}, "brigade": {"namespace": self.brigade}}
        return {**known, **{key: {**known.get(key, {}), **value} for key, value in more.items()}}

    def rendered(self, **more: Any) -> list[dict[str, Any]]:
        """The chart's objects for it."""
        return rendered(self.values(**more), namespace=self.home)

    def role_of(self, namespace: str | None) -> str:
        """What a namespace is to the chart; without one it is the whole cluster."""
        return {self.home: "release", self.runs: "Workflows", self.brigade: "Brigade", None: "cluster"}[namespace]


def plural(found: dict[str, Any]) -> str:
    """The kind as paths name it."""
    kind = found["kind"].lower()
    return {"networkpolicy": "networkpolicies", "ingress": "ingresses"}.get(kind, f"{kind}s")


def path_of(found: dict[str, Any]) -> str:
    """Where the API server has this object; the chart's own apiVersion counts."""
    version = found["apiVersion"]
    prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
    kinds = plural(found)
    assert KINDS.get(kinds, prefix) == prefix, f"{kinds} is of {version}"
    namespace = found["metadata"].get("namespace")
    within = f"/namespaces/{namespace}" if namespace else ""
    return f"{prefix}{within}/{kinds}/{found['metadata']['name']}"


def apply(admin: Client, found: dict[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
    """Apply one object, server-side and strictly; what is stored."""
    query = {"dryRun": "All"} if dry_run else {}
    return admin.patch(
        path_of(found),
        found,
        kind="apply",
        fieldManager=FIELD_MANAGER,
        fieldValidation="Strict",
        force=True,
        **query,
    )


def remove(admin: Client, found: dict[str, Any]) -> None:
    """Delete an object that belongs to no namespace; gone already is fine."""
    try:
        admin.delete(path_of(found))
    except ApiError as refused:
        if refused.status != 404:
            raise
