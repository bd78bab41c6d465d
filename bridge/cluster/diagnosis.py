"""What `bridgectl doctor` looks at through the API server. It reads, and asks who may do what; it changes nothing.

Each check is a method that yields findings, and is on its own: what it may not look at leaves it as Forbidden,
and no answer as Unavailable; the caller says so and goes on with the next.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from bridge.cluster.api import LEASES, SECRETS, WORKFLOW_TEMPLATES, WORKFLOWS, Api, Resource
from bridge.cluster.runs import SecretRuns
from bridge.core import checkups, permissions
from bridge.core.checkups import ArgoController, Finding, named, ok, unknown, warning, wrong
from bridge.core.kubernetes import Json, mapping, mappings, seconds, text
from bridge.core.permissions import Account, Place, Right
from bridge.core.runs import Phase
from bridge.errors import Forbidden, NotFound
from bridge.ports import RunFilter

CONFIG_MAPS = Resource("configmaps", "ConfigMap")
NAMESPACES = Resource("namespaces", "Namespace")
SERVICE_ACCOUNTS = Resource("serviceaccounts", "ServiceAccount")
QUOTAS = Resource("resourcequotas", "ResourceQuota")
DEPLOYMENTS = Resource("deployments", "Deployment", "apps")
CRDS = Resource("customresourcedefinitions", "CustomResourceDefinition", "apiextensions.k8s.io")
TASK_RESULTS = Resource("workflowtaskresults", "WorkflowTaskResult", "argoproj.io", "v1alpha1")
_WHO_AM_I = Resource("selfsubjectreviews", "SelfSubjectReview", "authentication.k8s.io")
_MAY_I = Resource("selfsubjectaccessreviews", "SelfSubjectAccessReview", "authorization.k8s.io")
_MAY_THEY = Resource("subjectaccessreviews", "SubjectAccessReview", "authorization.k8s.io")

STEP_CONFIG = "bridge-step"
LEASE = "bridge-controller"
OURS = ("bridge-gateway", "bridge-controller")
"""Our Deployments, and the ConfigMaps with their settings."""
_SIGNING_VARIABLES = ("BRIDGE_DEFAULT_SHARED_SECRET", "BRIDGE_GITHUB_APP_WEBHOOK_SECRET")
LEASE_SECONDS = 60.0
"""A Lease that nobody renewed for so long is nobody's."""
USUAL_ARGO_NAMESPACE = "argo"

_ENFORCE = "pod-security.kubernetes.io/enforce"
_HELM = "run `helm upgrade` with the chart (rbac.create: true), or take the rule from docs/rbac.md"


@dataclass(frozen=True)
class Places:
    """Which namespaces are meant."""

    runs: str
    """Of records, Workflows and WorkflowTemplates."""
    brigade: str
    release: str
    """Of bridge's own Deployments and the Lease."""
    argo: str = ""
    """Of Argo's controller; empty: wherever one is found."""

    def of(self, place: Place) -> str:
        """The namespace of a part; empty for the whole cluster."""
        return {Place.RUNS: self.runs, Place.BRIGADE: self.brigade, Place.RELEASE: self.release}.get(place, "")


class ClusterDiagnosis:
    """The checks of Kubernetes, Argo and our own rights.

    Args:
        api: the API server, as whoever looks.
        places: the namespaces.
        instance_id: of the Argo controller that is meant, if it has one.
        now: the time.

    """

    def __init__(self, api: Api, places: Places, *, instance_id: str, now: Callable[[], float]) -> None:
        self._api = api
        self._places = places
        self._instance_id = instance_id
        self._now = now

    def server(self) -> Iterator[Finding]:
        """That the API server answers, and who we are to it."""
        said = text(self._api.at("/version"), "gitVersion")
        version = checkups.version_of(said)
        told = f"{self._api.connection.server} is Kubernetes {said[:40]}; asked as {self.whoami[:200]}"
        if version is not None and version[:2] < checkups.OLDEST_KUBERNETES:
            oldest = ".".join(map(str, checkups.OLDEST_KUBERNETES))
            yield warning("kubernetes", told, f"upgrade it to {oldest} or later: older ones are not tested")
            return
        yield ok("kubernetes", told)

    @cached_property
    def whoami(self) -> str:
        """The name that the API server knows us by; empty if it does not say."""
        body = {"apiVersion": _WHO_AM_I.api_version, "kind": _WHO_AM_I.kind}
        try:
            answer = self._api.create(_WHO_AM_I, "", body)
        except NotFound:
            return ""
        return text(mapping(answer, "status", "userInfo"), "username")

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

    def crds(self) -> Iterator[Finding]:
        """That Argo's kinds are there, with the fields that bridge uses."""
        for resource in (WORKFLOWS, WORKFLOW_TEMPLATES, TASK_RESULTS):
            check = f"argo.crds.{resource.plural}"
            try:
                crd = self._api.get(CRDS, "", f"{resource.plural}.{resource.group}")
            except NotFound:
                yield wrong(check, f"the CRD {resource} is not installed", _CRD_REMEDY)
                continue
            except Forbidden:
                yield self._served(check, resource)
                continue
            complaint = "" if resource is TASK_RESULTS else checkups.crd_complaint(crd)
            if complaint:
                yield wrong(check, f"the CRD {resource}: {complaint}", _CRD_REMEDY)
            else:
                yield ok(check, f"the CRD {resource} is there, with what bridge uses")

    def _served(self, check: str, resource: Resource) -> Finding:
        """What can be said of a kind without reading its CRD: the API server tells everybody what it serves."""
        try:
            answer = self._api.at(f"/apis/{resource.group}/{resource.version}")
        except NotFound:
            answer = {}
        if not any(one.get("name") == resource.plural for one in mappings(answer, "resources")):
            return wrong(
                check, f"the API server does not serve {resource.plural} of {resource.api_version}", _CRD_REMEDY
            )
        return ok(check, f"{resource.plural} of {resource.api_version} are served (the CRD may not be read here)")

    def argo(self) -> Iterator[Finding]:
        """Argo's controllers: their versions, and whether one looks at our namespace."""
        controllers, hidden = self._argo_controllers()
        yield from map(self._argo_version, controllers)
        late, looked, any_looked = self._attended()
        yield from self._watching(controllers, hidden=hidden, any_looked=any_looked)
        yield from self._waiting(late, looked=looked)

    def _argo_controllers(self) -> tuple[list[ArgoController], str]:
        """Those that can be seen, and what could not be looked at."""
        try:
            found = self._deployments(self._places.argo)
        except Forbidden as exc:
            if self._places.argo:
                return [], _not_allowed(exc)
            found, hidden = [], _not_allowed(exc)
            for namespace in (USUAL_ARGO_NAMESPACE, self._places.runs):
                try:
                    found += self._deployments(namespace)
                except Forbidden:
                    continue
        else:
            hidden = ""
        controllers = [one for one in map(checkups.argo_controller_of, found) if one is not None]
        return [replace(one, instance_id=self._instance_id_of(one)) for one in controllers], hidden

    def _deployments(self, namespace: str) -> list[dict[str, Any]]:
        return [one for page in self._api.pages(DEPLOYMENTS, namespace) for one in page.items]

    def _instance_id_of(self, controller: ArgoController) -> str | None:
        try:
            return checkups.instance_id_of(self._api.get(CONFIG_MAPS, controller.namespace, controller.config))
        except NotFound:
            return ""
        except Forbidden:
            return None

    def _argo_version(self, controller: ArgoController) -> Finding:
        check = "argo.version"
        version = checkups.version_of(controller.image)
        if version is None:
            return unknown(
                check,
                f"Argo's controller {controller} runs {controller.image[:200]}, which names no version",
                f"ask it: kubectl --namespace {controller.namespace} logs deployment/{controller.name} | head; "
                f"{_FLOORS}",
            )
        safe = checkups.safe_release(version)
        told = f"Argo's controller {controller} is {'.'.join(map(str, version))}"
        if safe:
            return wrong(check, f"{told}, which has known holes", f"upgrade Argo to {safe} or later; {_FLOORS}")
        return ok(check, told)

    def _attended(self) -> tuple[list[str], bool, bool]:
        """Workflows that wait too long for Argo; whether it looked at a later one; whether it looked at any."""
        label, runs = checkups.PHASE_LABEL, self._places.runs
        try:
            waiting = [
                one
                for page in self._api.pages(WORKFLOWS, runs, labels=f"!{label}", metadata_only=True)
                for one in page.items
            ]
            newest = max(
                (
                    seconds(mapping(one, "metadata"), "creationTimestamp") or 0.0
                    for page in self._api.pages(WORKFLOWS, runs, labels=label, metadata_only=True)
                    for one in page.items
                ),
                default=None,
            )
        except NotFound:
            return [], False, False
        late, looked = checkups.unattended(waiting, newest, self._now())
        return late, looked, newest is not None

    def _watching(self, controllers: list[ArgoController], *, hidden: str, any_looked: bool) -> Iterator[Finding]:
        check, runs = "argo.watches", self._places.runs
        refusals = {one: checkups.why_unwatched(one, runs, self._instance_id) for one in controllers}
        watching = [one for one, refusal in refusals.items() if not refusal]
        if watching:
            yield self._watched(watching[0])
        elif controllers:
            reasons = "; ".join(f"{one}: {refusal}" for one, refusal in refusals.items())
            yield wrong(
                check,
                f"no Argo controller looks at bridge's Workflows in namespace {runs}: {reasons[:600]}",
                "let one watch it (--managed-namespace, or without --namespaced), and set its instanceID as "
                "workflows.argoInstanceID of the chart (BRIDGE_ARGO_INSTANCE_ID)",
            )
        elif hidden or any_looked:
            seen = "; Argo has looked at Workflows there, so one watches it" if any_looked else ""
            yield unknown(
                check,
                f"no Deployment of Argo's controller can be seen{f' ({hidden})' if hidden else ''}{seen}",
                f"{_LOOK_FOR_ARGO if hidden else 'see how it runs'}, and compare its version by hand; {_FLOORS}",
            )
        else:
            where = f"namespace {self._places.argo}" if self._places.argo else "the cluster"
            yield wrong(
                check,
                f"there is no Deployment of Argo's workflow-controller in {where}",
                "install Argo Workflows, and let it watch the Workflows' namespace",
            )

    def _watched(self, controller: ArgoController) -> Finding:
        what = f"namespace {controller.watches}" if controller.watches else "every namespace"
        told = f"Argo's controller {controller} watches {what}"
        if controller.instance_id is None:
            return unknown(
                "argo.watches",
                f"{told}; whether its instanceID is {self._instance_id or 'empty'} is not known",
                f"run this with the verb get on configmaps in {controller.namespace}, or read {controller.config}",
            )
        return ok("argo.watches", f"{told}, instanceID {controller.instance_id or 'none'}")

    def _waiting(self, late: list[str], *, looked: bool) -> Iterator[Finding]:
        if not late:
            return
        check, runs = "argo.workflows", self._places.runs
        told = f"Workflows in {runs} without a phase, for over {checkups.UNATTENDED_SECONDS:.0f} s: {named(late)}"
        if looked:
            yield warning(
                check,
                f"{told}; Argo looked at later ones",
                f"kubectl --namespace {runs} describe workflow {late[0]}: "
                "Argo could not read it, or another instanceID is meant",
            )
            return
        yield wrong(
            check,
            f"{told}: nobody looks at them",
            "start Argo's controller, and see that it watches this namespace with bridge's instanceID",
        )

    def step_config(self) -> Iterator[Finding]:
        """The ConfigMap from which steps know Brigade's namespace and the gateway."""
        check, runs, brigade = "steps.config", self._places.runs, self._places.brigade
        name = f"ConfigMap {STEP_CONFIG} in {runs}"
        remedy = (
            f"run `helm upgrade`, or make the {name} with BRIDGE_BRIGADE_NAMESPACE={brigade} and a gateway's URL"
        )
        try:
            data = mapping(self._api.get(CONFIG_MAPS, runs, STEP_CONFIG), "data")
        except NotFound:
            told = f"there is no {name}: steps look for Brigade in default, and know no gateway"
            yield warning(check, told, remedy) if brigade == "default" else wrong(check, told, remedy)
            return
        theirs = text(data, "BRIDGE_BRIGADE_NAMESPACE") or "default"
        if theirs != brigade:
            yield wrong(check, f"{name}: steps make builds in {theirs}, and bridge looks in {brigade}", remedy)
        elif not text(data, "BRIDGE_GATEWAY_URL"):
            yield warning(check, f"{name}: it names no gateway, so steps get no GitHub token", remedy)
        else:
            yield ok(check, f"{name}: it names Brigade's namespace and the gateway")

    def records(self) -> Iterator[Finding]:
        """That every record can be read; how many there are, and how many are open."""
        runs = SecretRuns(self._api, self._places.runs)
        found = runs.list(RunFilter())
        for name, reason in runs.damaged():
            yield wrong(
                "records.set-aside",
                f"record {name[:100]} is left alone: {reason}",
                f"kubectl --namespace {self._places.runs} get secret {name[:100]} -o jsonpath={{.metadata}}; "
                "one of a newer bridge needs that bridge, a damaged one may be deleted, its delivery sent again",
            )
        still_open = sum(1 for run in found if run.phase is not Phase.CLOSED)
        yield ok("records", f"{len(found)} records can be read, {still_open} of them open")

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

    def rights(self, account: Account) -> Iterator[Finding]:
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
        if self.whoami == user:
            return self._allowed(_MAY_I, {"resourceAttributes": attributes})
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{home}", "system:authenticated"]
        return self._allowed(_MAY_THEY, {"user": user, "groups": groups, "resourceAttributes": attributes})

    def _allowed(self, review: Resource, spec: Json) -> bool:
        body = {"apiVersion": review.api_version, "kind": review.kind, "spec": spec}
        return mapping(self._api.create(review, "", body), "status").get("allowed") is True

    def ours(self) -> Iterator[Finding]:
        """That a controller leads, and that our own Deployments are ready."""
        yield from self._leader()
        release = self._places.release
        for name in OURS:
            check = name.replace("-", ".")
            try:
                found = self._api.get(DEPLOYMENTS, release, name)
            except NotFound:
                yield wrong(
                    check,
                    f"there is no Deployment {name} in {release}",
                    "run `helm install`, or name its namespace (--release-namespace)",
                )
                continue
            ready = checkups.ready_replicas(found)
            if ready:
                yield ok(check, f"Deployment {release}/{name}: ready pods: {ready}")
            else:
                yield wrong(
                    check,
                    f"Deployment {release}/{name}: no pod is ready",
                    f"kubectl --namespace {release} describe pods, and logs deployment/{name}",
                )

    def _leader(self) -> Iterator[Finding]:
        check, release = "bridge.leader", self._places.release
        remedy = f"kubectl --namespace {release} logs deployment/bridge-controller"
        try:
            spec = mapping(self._api.get(LEASES, release, LEASE), "spec")
        except NotFound:
            yield wrong(check, f"no controller has ever led: there is no Lease {LEASE} in {release}", remedy)
            return
        holder, renewed = text(spec, "holderIdentity"), seconds(spec, "renewTime")
        silent = self._now() - (renewed or 0.0)
        if not holder or silent > LEASE_SECONDS:
            since = f"; the Lease was renewed {silent:.0f} s ago" if renewed else ""
            yield wrong(check, f"no controller leads{since}", remedy)
        else:
            yield ok(check, f"{holder[:200]} leads")

    def gateway_signs(self) -> bool | None:
        """Whether the gateway has a secret for projects without one; None: that may not be looked at."""
        release = self._places.release
        try:
            gateway = self._api.get(DEPLOYMENTS, release, OURS[0])
        except NotFound:
            return False
        except Forbidden:
            return None
        container = next(iter(mappings(mapping(gateway, "spec", "template", "spec"), "containers")), {})
        wanted = [_reference(container, name) for name in _SIGNING_VARIABLES]
        try:
            return any(self._holds(secret, key) for secret, key in wanted if secret)
        except Forbidden:
            return None

    def _holds(self, secret: str, key: str) -> bool:
        try:
            return bool(mapping(self._api.get(SECRETS, self._places.release, secret), "data").get(key))
        except NotFound:
            return False

    def settings_of_release(self) -> dict[str, str]:
        """What the chart's ConfigMaps tell gateway and controller; empty where they cannot be read."""
        told: dict[str, str] = {}
        for name in OURS:
            try:
                data = mapping(self._api.get(CONFIG_MAPS, self._places.release, name), "data")
            except (NotFound, Forbidden):
                continue
            told |= {key: value for key, value in data.items() if isinstance(value, str)}
        return told


def _reference(container: Json, variable: str) -> tuple[str, str]:
    """The Secret and key that a variable is taken from; empty if it is none."""
    found = next((one for one in mappings(container, "env") if one.get("name") == variable), {})
    reference = mapping(found, "valueFrom", "secretKeyRef")
    return text(reference, "name"), text(reference, "key")


def _not_allowed(exc: Forbidden) -> str:
    return str(exc).partition(";")[0].partition(" (")[0][:300]


_CRD_REMEDY = "install the CRDs of a safe Argo release (kubectl apply --server-side, manifests/base/crds)"
_LOOK_FOR_ARGO = (
    "run this with the verb list on deployments.apps and get on configmaps where Argo is installed "
    "(--argo-namespace NAME)"
)
_FLOORS = "safe are 3.7.15, 4.0.10, 4.1.4 and later ones of these lines"
