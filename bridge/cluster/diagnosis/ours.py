"""Bridge's own parts in a cluster, and what the release tells of its settings."""

from collections.abc import Callable, Iterator

from bridge.cluster.api import LEASES, SECRETS, Api
from bridge.cluster.diagnosis.places import CONFIG_MAPS, DEPLOYMENTS, Places
from bridge.cluster.runs import SecretRuns
from bridge.core import checkups
from bridge.core.checkups import Finding, ok, warning, wrong
from bridge.core.kubernetes import Json, mapping, mappings, seconds, text
from bridge.core.runs import Phase
from bridge.errors import Forbidden, NotFound
from bridge.ports import RunFilter

STEP_CONFIG = "bridge-step"
LEASE = "bridge-controller"
OURS = ("bridge-gateway", "bridge-controller")
"""Our Deployments, and the ConfigMaps with their settings."""
LEASE_SECONDS = 60.0
"""A Lease that nobody renewed for so long is nobody's."""

_SIGNING_VARIABLES = ("BRIDGE_DEFAULT_SHARED_SECRET", "BRIDGE_GITHUB_APP_WEBHOOK_SECRET")


class OwnDiagnosis:
    """The checks of bridge itself.

    Args:
        api: the API server, as whoever looks.
        places: the namespaces.
        now: the time.

    """

    def __init__(self, api: Api, places: Places, *, now: Callable[[], float]) -> None:
        self._api = api
        self._places = places
        self._now = now

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

    def deployments(self) -> Iterator[Finding]:
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
