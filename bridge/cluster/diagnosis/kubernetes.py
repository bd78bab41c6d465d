"""The API server, who we are to it, and the namespaces."""

from collections.abc import Iterator

from bridge.cluster.api import Api, Resource
from bridge.cluster.diagnosis.places import NAMESPACES, QUOTAS, Places
from bridge.core import checkups
from bridge.core.checkups import Finding, named, ok, warning, wrong
from bridge.core.kubernetes import mapping, text
from bridge.errors import NotFound

_WHO_AM_I = Resource("selfsubjectreviews", "SelfSubjectReview", "authentication.k8s.io")
_ENFORCE = "pod-security.kubernetes.io/enforce"


def who_am_i(api: Api) -> str:
    """The name that the API server knows us by; empty if it does not say."""
    body = {"apiVersion": _WHO_AM_I.api_version, "kind": _WHO_AM_I.kind}
    try:
        answer = api.create(_WHO_AM_I, "", body)
    except NotFound:
        return ""
    return text(mapping(answer, "status", "userInfo"), "username")


class KubernetesDiagnosis:
    """The checks of Kubernetes itself.

    Args:
        api: the API server, as whoever looks.
        places: the namespaces.

    """

    def __init__(self, api: Api, places: Places) -> None:
        self._api = api
        self._places = places

    def server(self) -> Iterator[Finding]:
        """That the API server answers, and who we are to it."""
        said = text(self._api.at("/version"), "gitVersion")
        version = checkups.version_of(said)
        told = f"{self._api.connection.server} is Kubernetes {said[:40]}; asked as {who_am_i(self._api)[:200]}"
        if version is not None and version[:2] < checkups.OLDEST_KUBERNETES:
            oldest = ".".join(map(str, checkups.OLDEST_KUBERNETES))
            yield warning("kubernetes", told, f"upgrade it to {oldest} or later: older ones are not tested")
            return
        yield ok("kubernetes", told)

    def namespaces(self) -> Iterator[Finding]:
        """That the namespaces are there, and what Pod Security says of the pods in them."""
        places = self._places
        if places.release in {places.runs, places.brigade}:
            yield warning(
                "namespaces.apart",
                f"bridge itself shares namespace {places.release} with {self._what(places.release)}: "
                "steps may read every Secret there, the GitHub App's key and the tokens too",
                "install the release into a namespace of its own",
            )
        for namespace in dict.fromkeys((places.runs, places.brigade)):
            try:
                found = self._api.get(NAMESPACES, "", namespace, metadata_only=True)
            except NotFound:
                yield wrong(
                    "namespaces", f"namespace {namespace} is not there", f"kubectl create namespace {namespace}"
                )
                continue
            yield self._pod_security(namespace, text(mapping(found, "metadata", "labels"), _ENFORCE))

    def _what(self, namespace: str) -> str:
        return "the Workflows" if namespace == self._places.runs else "Brigade"

    def _pod_security(self, namespace: str, level: str) -> Finding:
        check = "namespaces.pod-security"
        if namespace == self._places.brigade and level == "restricted":
            return wrong(
                check,
                f"namespace {namespace} enforces Pod Security restricted: Brigade's workers and jobs are refused",
                f"kubectl label --overwrite namespace {namespace} {_ENFORCE}=baseline",
            )
        if namespace == self._places.brigade:
            refused = "; jobs that are privileged or mount the host's files are refused"
            return ok(check, f"namespace {namespace} enforces {level or 'nothing'}{refused if level else ''}")
        if level != "restricted":
            return warning(
                check,
                f"namespace {namespace} enforces {level or 'nothing'}; bridge's own steps pass restricted",
                f"kubectl label --overwrite namespace {namespace} {_ENFORCE}=restricted, "
                "unless pipelines with containers of their own need more",
            )
        return ok(check, f"namespace {namespace} enforces restricted, which bridge's steps pass")

    def quotas(self) -> Iterator[Finding]:
        """That quotas leave room for pods: a step that gets none waits, and Argo does not end it."""
        for namespace in dict.fromkeys((self._places.runs, self._places.brigade)):
            full = [
                f"{text(mapping(quota, 'metadata'), 'name')} ({used} of {hard} pods)"
                for page in self._api.pages(QUOTAS, namespace)
                for quota in page.items
                for hard, used in checkups.full_quotas(quota)
            ]
            if full:
                yield warning(
                    "namespaces.quota",
                    f"no more pods fit into namespace {namespace}: {named(full)}",
                    "raise the ResourceQuota, or wait: runs go on when pods end, and end at their own deadline",
                )
            else:
                yield ok("namespaces.quota", f"no ResourceQuota of namespace {namespace} is used up")
