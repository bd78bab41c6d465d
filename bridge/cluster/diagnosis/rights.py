"""What each ServiceAccount of ours may do, by asking the API server."""

from collections.abc import Iterator
from functools import cached_property

from bridge.cluster.api import Api, Resource
from bridge.cluster.diagnosis.kubernetes import who_am_i
from bridge.cluster.diagnosis.places import SERVICE_ACCOUNTS, Places
from bridge.core import permissions
from bridge.core.checkups import Finding, ok, warning, wrong
from bridge.core.kubernetes import Json, mapping
from bridge.core.permissions import Account, Right
from bridge.errors import Forbidden, NotFound

_MAY_I = Resource("selfsubjectaccessreviews", "SelfSubjectAccessReview", "authorization.k8s.io")
_MAY_THEY = Resource("subjectaccessreviews", "SubjectAccessReview", "authorization.k8s.io")
_HELM = "run `helm upgrade` with the chart (rbac.create: true), or take the rule from docs/rbac.md"


class RightsDiagnosis:
    """The checks of rights: of our own account, and of all if we may ask for others.

    Args:
        api: the API server, as whoever looks.
        places: the namespaces.

    """

    def __init__(self, api: Api, places: Places) -> None:
        self._api = api
        self._places = places

    def of(self, account: Account) -> Iterator[Finding]:
        """Every right of one of our ServiceAccounts, by asking the API server what it may do."""
        check, home = f"rights.{account.name}", self._places.of(account.home)
        rights = permissions.rights_of(account)
        missing = [told for right in rights if right not in permissions.FOR_TOKENS for told in self._lacks(right)]
        left_out = [told for right in rights if right in permissions.FOR_TOKENS for told in self._lacks(right)]
        too_many = [
            f"{verb} {right} in {self._places.of(right.place)}"
            for right in permissions.rights_of(account, permissions.FORBIDDEN)
            for verb in right.verbs
            if self._may(right, verb)
        ]
        if missing:
            yield wrong(check, f"ServiceAccount {home}/{account.name} may not {'; '.join(missing)}", _HELM)
        if left_out:
            yield warning(
                check,
                f"ServiceAccount {home}/{account.name} may not {'; '.join(left_out)}: steps get no GitHub token",
                f"{_HELM}, with rbac.tokenReview: true; without a GitHub App nothing is missing",
            )
        if too_many:
            yield wrong(
                check,
                f"ServiceAccount {home}/{account.name} runs other people's code and may {', '.join(too_many)}",
                "take the Role or ClusterRole away from it that allows this",
            )
        yield from self._exists(check, account, home)
        if not missing and not left_out and not too_many:
            yield ok(check, f"ServiceAccount {home}/{account.name} may do all that it needs")

    def _exists(self, check: str, account: Account, home: str) -> Iterator[Finding]:
        try:
            self._api.get(SERVICE_ACCOUNTS, home, account.name, metadata_only=True)
        except NotFound:
            yield wrong(check, f"there is no ServiceAccount {account.name} in {home}", _HELM)
        except Forbidden:
            # What it may do is known; its own pods run with it.
            return

    def _lacks(self, right: Right) -> Iterator[str]:
        verbs = [verb for verb in right.verbs if not self._may(right, verb)]
        where = self._places.of(right.place)
        if verbs:
            name = f" {right.name}" if right.name else ""
            yield f"{', '.join(verbs)} {right}{name}{f' in {where}' if where else ''}"

    def _may(self, right: Right, verb: str) -> bool:
        """Raises Forbidden if it is somebody else's right, and we may not ask for those."""
        resource, _, below = right.resource.partition("/")
        attributes = {
            "verb": verb,
            "group": right.group,
            "resource": resource,
            "subresource": below,
            "name": right.name,
            "namespace": self._places.of(right.place),
        }
        home = self._places.of(right.account.home)
        user = f"system:serviceaccount:{home}:{right.account.name}"
        if self._whoami == user:
            return self._allowed(_MAY_I, {"resourceAttributes": attributes})
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{home}", "system:authenticated"]
        return self._allowed(_MAY_THEY, {"user": user, "groups": groups, "resourceAttributes": attributes})

    def _allowed(self, review: Resource, spec: Json) -> bool:
        body = {"apiVersion": review.api_version, "kind": review.kind, "spec": spec}
        return mapping(self._api.create(review, "", body), "status").get("allowed") is True

    @cached_property
    def _whoami(self) -> str:
        return who_am_i(self._api)
