"""Argo: its CRDs, its controllers' versions, and whether one looks at our Workflows."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from bridge.cluster.api import WORKFLOW_TEMPLATES, WORKFLOWS, Api, Resource
from bridge.cluster.diagnosis.places import CONFIG_MAPS, CRDS, DEPLOYMENTS, Places
from bridge.core import checkups
from bridge.core.checkups import ArgoController, Finding, named, ok, unknown, warning, wrong
from bridge.core.kubernetes import mapping, mappings, seconds
from bridge.errors import Forbidden, NotFound

USUAL_NAMESPACE = "argo"

TASK_RESULTS = Resource("workflowtaskresults", "WorkflowTaskResult", "argoproj.io", "v1alpha1")
_CRD_REMEDY = "install the CRDs of a safe Argo release (kubectl apply --server-side, manifests/base/crds)"
_LOOK_FOR_ARGO = (
    "run this with the verb list on deployments.apps and get on configmaps where Argo is installed "
    "(--argo-namespace NAME)"
)
_FLOORS = "safe are 3.7.15, 4.0.10, 4.1.4 and later ones of these lines"


class ArgoDiagnosis:
    """The checks of Argo.

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

    def controllers(self) -> Iterator[Finding]:
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
            for namespace in (USUAL_NAMESPACE, self._places.runs):
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


def _not_allowed(exc: Forbidden) -> str:
    return str(exc).partition(";")[0].partition(" (")[0][:300]
