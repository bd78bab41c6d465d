"""Which account the rendered chart lets do what: one `Grant` for each verb on each resource in each namespace."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.chart.helming import of_kind, the
from tests.chart.placing import Place

NOWHERE = Place(home="release-of-nobody", runs="runs-of-nobody", brigade="brigade-of-nobody")
"""Namespaces for what is only looked at."""


@dataclass(frozen=True, order=True)
class Grant:
    """One verb."""

    account: str
    where: str
    """What the namespace is to the chart: release, Workflows, Brigade; or cluster."""
    resource: str
    """As the API server calls it: `pods/log`, `workflows.argoproj.io`."""
    verb: str

    def __str__(self) -> str:
        return f"{self.account} {self.verb} {self.resource} ({self.where})"


def granted(objects: list[dict[str, Any]], place: Place) -> set[Grant]:
    """All that the chart's bindings say."""
    return {
        Grant(subject["name"], place.role_of(binding["metadata"].get("namespace")), resource, verb)
        for binding, role in bindings(objects)
        for subject in binding["subjects"]
        for resource, verb in verbs_of(role["rules"])
    }


def bindings(objects: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each binding with its role."""
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        yield binding, the(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"])


def verbs_of(rules: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Resource and verb of each."""
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield (f"{resource}.{group}" if group else resource), verb


def without(rules: list[dict[str, Any]], resource: str, verb: str) -> list[dict[str, Any]]:
    """The rules less one verb on one resource. Each of the chart's rules is of one resource."""
    kept = []
    for rule in rules:
        ((called, _), *_) = verbs_of([rule])
        verbs = [one for one in rule["verbs"] if (called, one) != (resource, verb)]
        if verbs:
            kept.append({**rule, "verbs": verbs})
    return kept
