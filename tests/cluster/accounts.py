"""ServiceAccounts of tests: made, given rules, and waited for until the API server knows."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from tests.cluster.client import ApiError, Client, path

PATIENCE_SECONDS = 60
Rule = dict[str, Any]


def create_account(admin: Client, namespace: str, name: str) -> None:
    """Make the account, if there is none."""
    try:
        admin.create(path("serviceaccounts", namespace), {"metadata": {"name": name}})
    except ApiError as refused:
        if refused.status != 409:
            raise


def token_of(admin: Client, namespace: str, name: str, *, seconds: int = 3600) -> str:
    """A fresh token, as a Pod of this account would get it. The API server gives none for less than 600 s."""
    answer = admin.create(
        path("serviceaccounts", namespace, name, "token"), {"spec": {"expirationSeconds": max(seconds, 600)}}
    )
    return answer["status"]["token"]


def grant(admin: Client, where: str, namespace: str, name: str, rules: list[Rule]) -> None:
    """Let the account `name` of `namespace` do this in the namespace `where`; it holds when the call returns."""
    role = f"{name}-{uuid.uuid4().hex[:8]}"
    admin.create(path("roles", where), {"metadata": {"name": role}, "rules": rules})
    binding = {
        "metadata": {"name": role},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
    }
    admin.create(path("rolebindings", where), binding)
    for rule in rules:
        await_allowed(admin, where, namespace, name, rule)


def await_allowed(admin: Client, where: str, namespace: str, name: str, rule: Rule) -> None:
    """Wait until the account may do the first thing that the rule says: the API server learns of Roles by a watch."""
    resource, _, subresource = rule["resources"][0].partition("/")
    attributes = {
        "namespace": where,
        "verb": rule["verbs"][0],
        "group": rule["apiGroups"][0],
        "resource": resource,
        "subresource": subresource,
        "name": next(iter(rule.get("resourceNames", [])), ""),
    }
    user = f"system:serviceaccount:{namespace}:{name}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    review = {"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}}

    def is_allowed() -> bool:
        return admin.create(path("subjectaccessreviews"), review)["status"]["allowed"]

    eventually(is_allowed, f"{user} may {rule}")


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.02)
