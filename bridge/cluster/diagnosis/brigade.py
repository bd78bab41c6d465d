"""Brigade: its controller, its workers' images and accounts, and whether anybody takes builds."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from bridge.cluster.api import SECRETS, Api
from bridge.cluster.diagnosis.places import DEPLOYMENTS, SERVICE_ACCOUNTS, Places
from bridge.cluster.diagnosis.projects import ProjectSecrets
from bridge.core import checkups
from bridge.core.brigade import is_accepted
from bridge.core.checkups import Finding, named, ok, unknown, wrong
from bridge.core.kubernetes import Json, mapping, text
from bridge.errors import Forbidden, NotFound

PROGRAM = "brigade-controller"
WORKER_IMAGE = "brigadecore/brigade-worker"
"""Brigade's own, on the Node that Brigade v1 needs."""
WORKER_ACCOUNT = "brigade-worker"
"""Brigade's default."""

_NODE_REMEDY = (
    "look: kubectl run node-version --rm -it --restart=Never --image IMAGE --command -- node --version; "
    "Brigade v1 needs Node 12: under Node 20 a watch that ends kills the worker"
)


class BrigadeDiagnosis:
    """The checks of Brigade.

    Args:
        api: the API server, as whoever looks.
        places: the namespaces.
        projects: Brigade's.
        now: the time.

    """

    def __init__(self, api: Api, places: Places, projects: ProjectSecrets, *, now: Callable[[], float]) -> None:
        self._api = api
        self._places = places
        self._projects = projects
        self._now = now

    def controller(self) -> Iterator[Finding]:
        """Brigade's controller: there, ready, with a worker image and a ServiceAccount that work."""
        namespace = self._places.brigade
        deployments = [one for page in self._api.pages(DEPLOYMENTS, namespace) for one in page.items]
        found = [(one, container) for one in deployments if (container := checkups.container_of(one, PROGRAM))]
        if not found and self._builds_taken[1]:
            yield unknown(
                "brigade.controller",
                f"there is no Deployment of {PROGRAM} in namespace {namespace}, but somebody takes builds there",
                "see that it is Brigade v1's controller, and that it is kept running",
            )
            return
        if not found:
            yield wrong(
                "brigade.controller",
                f"there is no Deployment of {PROGRAM} in namespace {namespace}: builds would never start",
                "install Brigade v1 there, or name its namespace (brigade.namespace of the chart, "
                "BRIDGE_BRIGADE_NAMESPACE)",
            )
            return
        for deployment, container in found:
            name = text(mapping(deployment, "metadata"), "name")
            yield self._running(name, checkups.ready_replicas(deployment))
            yield self._looks_here(name, container)
            yield from _node(self._worker_images(container))
            yield from self._account(
                _told(container, "worker-service-account") or WORKER_ACCOUNT, "of the workers"
            )

    def builds(self) -> Iterator[Finding]:
        """That somebody takes builds: what can be seen of Brigade's controller without seeing it."""
        namespace = self._places.brigade
        late, taken = self._builds_taken
        if late:
            yield wrong(
                "brigade.builds",
                f"builds in namespace {namespace} that nobody took for over {checkups.UNATTENDED_SECONDS:.0f} s: "
                f"{named(late)}",
                "start Brigade's controller; if it runs, its log says why: a project that is gone, for instance",
            )
        elif taken:
            yield ok("brigade.builds", f"no build in namespace {namespace} waits to be taken")

    def accounts(self) -> Iterator[Finding]:
        """That the ServiceAccounts are there that projects name for their jobs."""
        accounts: dict[str, list[str]] = {}
        for name, values in self._projects.values.items():
            if account := values("serviceAccount"):
                accounts.setdefault(account, []).append(name)
        for account, names in sorted(accounts.items()):
            yield from self._account(account, f"of project {named(names)}")

    @cached_property
    def _builds_taken(self) -> tuple[list[str], bool]:
        """The builds that wait for Brigade for too long, and whether any was taken."""
        pages = self._api.pages(
            SECRETS, self._places.brigade, labels="component=build,heritage=brigade", metadata_only=True
        )
        builds = [build for page in pages for build in page.items]
        waiting = [build for build in builds if not is_accepted(build)]
        late, _ = checkups.unattended(waiting, None, self._now())
        return late, len(waiting) < len(builds)

    def _running(self, name: str, ready: int) -> Finding:
        namespace = self._places.brigade
        if ready:
            return ok("brigade.controller", f"Brigade's controller {namespace}/{name} is ready")
        return wrong(
            "brigade.controller",
            f"Brigade's controller {namespace}/{name} has no ready pod: builds wait until it has",
            f"kubectl --namespace {namespace} describe pods, and logs deployment/{name}",
        )

    def _looks_here(self, name: str, container: Json) -> Finding:
        namespace = self._places.brigade
        # A literal says where it looks; by default its pod's own namespace is put into the variable.
        watched = _told(container, "namespace", variable="BRIGADE_NAMESPACE") or namespace
        if watched == namespace:
            return ok("brigade.namespace", f"Brigade's controller {name} looks at namespace {namespace}")
        return wrong(
            "brigade.namespace",
            f"Brigade's controller {name} looks at namespace {watched}, and bridge makes builds in {namespace}",
            f"set brigade.namespace of the chart (BRIDGE_BRIGADE_NAMESPACE) to {watched}",
        )

    def _worker_images(self, container: Json) -> dict[str, list[str]]:
        """The images of workers, each with the projects that name it; none for the controller's own."""
        usual = _told(container, "worker-image") or f"{WORKER_IMAGE}:latest"
        images: dict[str, list[str]] = {usual: []}
        for name, values in self._projects.values.items():
            registry, image, tag = (values(f"worker.{part}") for part in ("registry", "name", "tag"))
            if image or tag:
                whole = image or usual.rpartition(":")[0]
                whole = f"{registry}/{whole}" if registry else whole
                images.setdefault(f"{whole}:{tag or usual.rpartition(':')[2]}", []).append(name)
        return images

    def _account(self, account: str, whose: str) -> Iterator[Finding]:
        check, namespace = "brigade.accounts", self._places.brigade
        told = f"ServiceAccount {account[:200]} {whose}"
        try:
            self._api.get(SERVICE_ACCOUNTS, namespace, account, metadata_only=True)
        except NotFound:
            yield wrong(
                check,
                f"{told}: it is not in namespace {namespace}, so no pod with it starts",
                f"kubectl --namespace {namespace} create serviceaccount {account[:200]}, "
                "with Brigade's Role for it, or name another one",
            )
        except Forbidden:
            yield unknown(
                check,
                f"{told}: whether it is in namespace {namespace} could not be looked at",
                f"run this with the verb get on serviceaccounts in {namespace}",
            )
        else:
            yield ok(check, f"{told} is there")


def _node(images: Mapping[str, list[str]]) -> Iterator[Finding]:
    for image, projects in images.items():
        whose = f"of {named(projects)}" if projects else "of Brigade's controller"
        if image.rpartition(":")[0].endswith(WORKER_IMAGE):
            yield ok("brigade.node", f"the worker image {whose} is Brigade's own: {image[:200]}")
            continue
        yield unknown(
            "brigade.node",
            f"the worker image {whose} is {image[:200]}, and which Node it has is not seen from here",
            _NODE_REMEDY.replace("IMAGE", image[:200]),
        )


def _told(container: Json, flag: str, *, variable: str = "") -> str:
    """What Brigade's controller was told by a flag, else by the flag's variable."""
    name = variable or f"BRIGADE_{flag.upper().replace('-', '_')}"
    return checkups.flags_of(container).get(flag, "") or checkups.variables_of(container).get(name, "")
