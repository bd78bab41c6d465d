"""Brigade's projects: whether each can be read, fetches the right commit, and has a secret that signs."""

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

from bridge.cluster.api import SECRETS, Api
from bridge.cluster.diagnosis.places import Places
from bridge.cluster.projects import SecretProjects
from bridge.core.checkouts import SIDECAR_IMAGE, keeps_commit
from bridge.core.checkups import Finding, named, ok, unknown, warning, wrong
from bridge.core.kubernetes import Json, mapping, text
from bridge.core.projects import Project
from bridge.errors import BadProject, UnknownProject

Values = Callable[[str], str]
"""A project's value by its key in the Secret; empty if there is none, or it is no text."""


class ProjectSecrets:
    """Brigade's projects, read once.

    Args:
        api: the API server, as whoever looks.
        namespace: Brigade's.

    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace

    @property
    def usable(self) -> list[Project]:
        """Every project that can be used, by name."""
        return self._read[0]

    @property
    def broken(self) -> list[tuple[str, str]]:
        """The others by name, each with the reason."""
        return self._read[1]

    @cached_property
    def values(self) -> dict[str, Values]:
        """What Brigade's own Secrets hold, by the projects' names."""
        return {_name(secret): _values(mapping(secret, "data")) for secret in self._secrets}

    @cached_property
    def _read(self) -> tuple[list[Project], list[tuple[str, str]]]:
        """The projects that can be used, and the others by name with the reason."""
        projects = SecretProjects(self._api, self._namespace)
        identities = {text(mapping(secret, "metadata"), "name"): _name(secret) for secret in self._secrets}
        usable: list[Project] = []
        broken: list[tuple[str, str]] = []
        for identity, name in identities.items():
            try:
                usable.append(projects.read_by_id(identity))
            except BadProject as exc:
                broken.append((name, str(exc)))
            except UnknownProject:
                # Gone since the list, or labelled as a project and none; Brigade does not know it either.
                continue
        return sorted(usable, key=lambda project: project.name), sorted(broken)

    @cached_property
    def _secrets(self) -> list[dict[str, Any]]:
        pages = self._api.pages(SECRETS, self._namespace, labels="app=brigade,component=project")
        return [secret for page in pages for secret in page.items]


class ProjectsDiagnosis:
    """The checks of projects.

    Args:
        places: the namespaces.
        projects: Brigade's.
        signed_otherwise: tells whether the gateway has a secret for projects without one; None: not known.

    """

    def __init__(
        self, places: Places, projects: ProjectSecrets, *, signed_otherwise: Callable[[], bool | None]
    ) -> None:
        self._places = places
        self._projects = projects
        self._signed_otherwise = signed_otherwise

    def projects(self) -> Iterator[Finding]:
        """That projects can be read, their sources fetched by commit, and their webhooks signed."""
        usable, broken = self._projects.usable, self._projects.broken
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

    def _sidecars(self) -> Iterator[Finding]:
        check = "projects.sidecar"
        theirs = [
            one.name for one in self._projects.usable if one.vcs_sidecar and not keeps_commit(one.vcs_sidecar)
        ]
        if theirs:
            yield warning(
                check,
                f"Brigade's sidecar builds the head of a branch, not a run's commit, in {named(theirs)}",
                f"make {SIDECAR_IMAGE} their vcsSidecar: docs/install.md; "
                "until then a retry after a new push is refused, unless the pipeline says `checkout`",
            )
            return
        fetched = sum(1 for one in self._projects.usable if one.vcs_sidecar)
        told = (
            f"the source of {fetched} projects is fetched by commit" if fetched else "no project fetches a source"
        )
        yield ok(check, told)

    def _signed(self) -> Iterator[Finding]:
        check = "projects.secret"
        unsigned = [one.name for one in self._projects.usable if not one.signing_secrets]
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


def _name(secret: Mapping[str, Any]) -> str:
    metadata = mapping(secret, "metadata")
    return text(mapping(metadata, "annotations"), "projectName") or text(metadata, "name")


def _values(data: Json) -> Values:
    def value(key: str) -> str:
        try:
            return base64.b64decode(text(data, key), validate=True).decode().strip()
        except (binascii.Error, ValueError):
            return ""

    return value
