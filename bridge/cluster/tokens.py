"""Whose a projected ServiceAccount token is, and which run its pod belongs to: by TokenReview, and the pod."""

import re
from collections.abc import Mapping
from typing import Any

from bridge.cluster.api import PODS, Api, Resource
from bridge.core.kubernetes import mapping, text
from bridge.core.names import RUN_LABEL
from bridge.errors import NotFound
from bridge.ports import Caller

TOKEN_AUDIENCE = "bridge"  # noqa: S105 - a name
"""Whom a step's projected token is for. It is of no use at the API server, and the API server's none here."""

TOKEN_REVIEWS = Resource("tokenreviews", "TokenReview", "authentication.k8s.io")

_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+:[^:]+)")
# As a header may carry it; longer ones are none of ours.
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")


class ClusterCallers:
    """The port Callers in a cluster. Needs the verb create on tokenreviews, and get on pods in `namespace`.

    Args:
        api: the API server.
        namespace: the Workflows'. Pods elsewhere belong to no run.

    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    def caller(self, token: str) -> Caller | None:
        """Who bears this token; None if it is not valid now, or for another audience.

        Nothing of an answer is kept: a token ends with its pod.
        """
        if not _TOKEN.fullmatch(token):
            return None
        review = {
            "apiVersion": TOKEN_REVIEWS.api_version,
            "kind": TOKEN_REVIEWS.kind,
            "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
        }
        status = mapping(self._api.create(TOKEN_REVIEWS, "", review), "status")
        user = mapping(status, "user")
        account = _ACCOUNT.fullmatch(text(user, "username"))
        audiences = status.get("audiences")
        # An authenticator that does not know audiences says yes without naming ours.
        ours = isinstance(audiences, list) and TOKEN_AUDIENCE in audiences
        if status.get("authenticated") is not True or not ours:
            return None
        if account is None:
            return None
        return Caller(account[1], self._run_of(account[1].partition(":")[0], mapping(user, "extra")))

    def _run_of(self, namespace: str, extra: Mapping[str, Any]) -> str:
        """The run that a token's pod belongs to; empty if it is bound to none, or to one that is gone."""
        name, uid = _only(extra, _POD_NAME), _only(extra, _POD_UID)
        if namespace != self._namespace or not name or not uid:
            return ""
        try:
            pod = self._api.get(PODS, namespace, name, metadata_only=True)
        except NotFound:
            return ""
        # Another pod of the same name is not who asks.
        return text(mapping(pod, "metadata", "labels"), RUN_LABEL) if _uid(pod) == uid else ""


def _only(extra: Mapping[str, Any], key: str) -> str:
    values = extra.get(key)
    return values[0] if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str) else ""


def _uid(found: Mapping[str, Any]) -> str:
    return text(mapping(found, "metadata"), "uid")
