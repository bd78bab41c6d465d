"""What `bridgectl doctor` looks at of Brigade, its projects, and the pipelines for them. It changes nothing."""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from bridge.cluster.api import SECRETS, WORKFLOW_TEMPLATES, Api
from bridge.cluster.diagnosis import DEPLOYMENTS, SERVICE_ACCOUNTS, Places
from bridge.cluster.projects import SecretProjects
from bridge.core import checkups
from bridge.core.brigade import is_accepted
from bridge.core.checkouts import SIDECAR_IMAGE, keeps_commit
from bridge.core.checkups import Finding, named, ok, unknown, warning, wrong
from bridge.core.globs import matches
from bridge.core.kubernetes import Json, mapping, text
from bridge.core.pipelines import OPTED_IN, Pipeline
from bridge.core.projects import Project
from bridge.core.workflow_templates import is_pipeline, pipeline_of
from bridge.errors import BadPipeline, BadProject, Forbidden, NotFound, UnknownProject

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
    """The checks of Brigade, projects and pipelines.

    Args:
        api: the API server, as whoever looks.
        places: the namespaces.
        now: the time.
        signed_otherwise: tells whether the gateway has a secret for projects without one; None: not known.
        falls_back: whether events of projects without a pipeline go to another gateway.

    """

    def __init__(
        self,
        api: Api,
        places: Places,
        *,
        now: Callable[[], float],
        signed_otherwise: Callable[[], bool | None],
        falls_back: bool,
    ) -> None:
        self._api = api
        self._places = places
        self._now = now
        self._signed_otherwise = signed_otherwise
        self._falls_back = falls_back

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
        images: dict[str, list[str]] = {_told(container, "worker-image") or f"{WORKER_IMAGE}:latest": []}
        for name, fields in self._fields.items():
            if image := _value(fields, "worker.name"):
                registry, tag = _value(fields, "worker.registry"), _value(fields, "worker.tag")
                whole = f"{registry}/{image}" if registry else image
                images.setdefault(f"{whole}:{tag or 'latest'}", []).append(name)
        return images

    def projects(self) -> Iterator[Finding]:
        """That projects can be read, their sources fetched by commit, and their webhooks signed."""
        usable, broken = self._read
        where = f"in namespace {self._places.brigade}"
        for name, reason in broken:
            yield wrong(
                "projects.broken",
                f"project {name}: {reason}",
                "mend that Secret; until then its deliveries get 500",
            )
        if not usable and not broken:
            yield warning("projects", f"there are no projects {where}", "make one: brig project create")
            return
        yield ok("projects", f"{len(usable)} projects {where} can be read")
        yield from self._sidecars()
        yield from self._signed()
        for account, names in sorted(self._accounts().items()):
            yield from self._account(account, f"of project {named(names)}")

    def _sidecars(self) -> Iterator[Finding]:
        check = "projects.sidecar"
        theirs = [
            one.name for one in self.usable_projects if one.vcs_sidecar and not keeps_commit(one.vcs_sidecar)
        ]
        if theirs:
            yield warning(
                check,
                f"Brigade's sidecar builds the head of a branch, not a run's commit, in {named(theirs)}",
                f"make {SIDECAR_IMAGE} their vcsSidecar: docs/install.md; "
                "until then a retry after a new push is refused, unless the pipeline says `checkout`",
            )
            return
        fetched = sum(1 for one in self.usable_projects if one.vcs_sidecar)
        told = (
            f"the source of {fetched} projects is fetched by commit" if fetched else "no project fetches a source"
        )
        yield ok(check, told)

    def _signed(self) -> Iterator[Finding]:
        check = "projects.secret"
        unsigned = [one.name for one in self.usable_projects if not one.signing_secrets]
        remedy = "give each a sharedSecret (brig project create --replace), and its webhook the same"
        signed = self._signed_otherwise() if unsigned else True
        if signed is None:
            yield unknown(
                check,
                f"no sharedSecret: {named(unsigned)}; whether the gateway has one for them is not seen from here",
                f"run this with the verb get on secrets in {self._places.release}, or {remedy}",
            )
        elif not signed:
            yield wrong(
                check, f"nothing can sign webhooks of {named(unsigned)}: they are all refused (401)", remedy
            )
        else:
            yield ok(check, "webhooks of every project can be signed")

    def _accounts(self) -> dict[str, list[str]]:
        accounts: dict[str, list[str]] = {}
        for name, fields in self._fields.items():
            if account := _value(fields, "serviceAccount"):
                accounts.setdefault(account, []).append(name)
        return accounts

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

    def pipelines(self) -> Iterator[Finding]:
        """That pipelines can be read, and that they and the projects find each other."""
        runs = self._places.runs
        usable, broken = self._pipelines()
        for reason in broken:
            for line in reason.splitlines():
                yield wrong("pipelines.broken", line, "mend it: docs/pipelines.md")
        if not usable:
            yield warning(
                "pipelines",
                f"no WorkflowTemplate in namespace {runs} is a pipeline",
                "render and apply one (docs/pipelines.md), or let the chart ship the default one",
            )
            return
        yield ok("pipelines", f"{len(usable)} pipelines in namespace {runs} can be read")
        yield from self._without_projects(usable)
        yield from self._without_pipelines(usable)

    def _without_projects(self, pipelines: list[Pipeline]) -> Iterator[Finding]:
        for pipeline in pipelines:
            if any(_is_for(pipeline, project) for project in self.usable_projects):
                continue
            if OPTED_IN in pipeline.projects:
                yield ok("pipelines.projects", f"pipeline {pipeline.name} waits for a project that opts in")
                continue
            yield warning(
                "pipelines.projects",
                f"pipeline {pipeline.name} is for {named(pipeline.projects)}, and there is no such project",
                f"spell it as in `brig project list --namespace {self._places.brigade}`, or make the project",
            )

    def _without_pipelines(self, pipelines: list[Pipeline]) -> Iterator[Finding]:
        check = "projects.pipelines"
        idle = [one.name for one in self.usable_projects if not any(_is_for(it, one) for it in pipelines)]
        if not idle:
            yield ok(check, "every project has a pipeline")
        elif self._falls_back:
            yield ok(check, f"no pipeline, so events go to the gateway behind BRIDGE_FALLBACK_URL: {named(idle)}")
        else:
            yield warning(
                check,
                f"no pipeline, so events start nothing: {named(idle)}",
                "add a pipeline that names them, opt them in to the default one "
                "(kubectl annotate secret PROJECT_ID bridge.brigade.sh/default-pipeline=true), or set fallbackUrl",
            )

    @property
    def usable_projects(self) -> list[Project]:
        """Every project that can be used, by name."""
        return self._read[0]

    @cached_property
    def _read(self) -> tuple[list[Project], list[tuple[str, str]]]:
        """The projects that can be used, and the others by name with the reason."""
        projects = SecretProjects(self._api, self._places.brigade)
        usable: list[Project] = []
        broken: list[tuple[str, str]] = []
        for identity, name in self._identities.items():
            try:
                usable.append(projects.read_by_id(identity))
            except BadProject as exc:
                broken.append((name, str(exc)))
            except UnknownProject:
                # Gone since the list, or labelled as a project and none; Brigade does not know it either.
                continue
        return sorted(usable, key=lambda project: project.name), sorted(broken)

    @property
    def _identities(self) -> dict[str, str]:
        return {text(mapping(secret, "metadata"), "name"): _name(secret) for secret in self._secrets}

    def _pipelines(self) -> tuple[list[Pipeline], list[str]]:
        """The pipelines that can be read, and why others cannot."""
        usable: list[Pipeline] = []
        broken: list[str] = []
        for page in self._api.pages(WORKFLOW_TEMPLATES, self._places.runs):
            for template in filter(is_pipeline, page.items):
                try:
                    usable.append(pipeline_of(template))
                except BadPipeline as exc:
                    broken.append(str(exc))
                except (RecursionError, ValueError, TypeError, AttributeError, KeyError) as exc:
                    # One that nobody thought of must not hide the others.
                    name = text(mapping(template, "metadata"), "name")
                    broken.append(f"WorkflowTemplate {name}: it cannot be read ({type(exc).__name__})")
        return usable, broken

    @cached_property
    def _fields(self) -> dict[str, Json]:
        """The data of Brigade's own project Secrets, by the projects' names."""
        return {_name(secret): mapping(secret, "data") for secret in self._secrets}

    @cached_property
    def _secrets(self) -> list[dict[str, Any]]:
        pages = self._api.pages(SECRETS, self._places.brigade, labels="app=brigade,component=project")
        return [secret for page in pages for secret in page.items]


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


def _is_for(pipeline: Pipeline, project: Project) -> bool:
    return any(
        project.default_pipeline if glob == OPTED_IN else matches(glob, project.name) for glob in pipeline.projects
    )


def _name(secret: Mapping[str, Any]) -> str:
    metadata = mapping(secret, "metadata")
    return text(mapping(metadata, "annotations"), "projectName") or text(metadata, "name")


def _value(fields: Json, key: str) -> str:
    """A Secret's value; empty if it is no text, which the project's own check tells."""
    try:
        return base64.b64decode(text(fields, key), validate=True).decode().strip()
    except (binascii.Error, ValueError):
        return ""
