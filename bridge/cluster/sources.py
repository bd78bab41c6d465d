"""Where projects' sources come from, for steps: the sidecar's image, and what a ref is at the git host now."""

from urllib.parse import urlsplit

from bridge.cluster.git_refs import TIMEOUT_SECONDS, heads_of, https_url
from bridge.core.checkouts import SIDECAR_IMAGE
from bridge.core.events import Event
from bridge.errors import Unavailable
from bridge.ports import Projects


class GitSources:
    """The sources of Brigade's projects.

    Args:
        projects: the projects.
        timeout_seconds: until a git host has answered.

    """

    def __init__(self, projects: Projects, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._projects = projects
        self._timeout_seconds = timeout_seconds

    def sidecar(self, event: Event) -> str:
        """The image that fetches the source for builds of this event's project; empty: none does.

        Raises UnknownProject.
        """
        return self._projects.read(event.project).vcs_sidecar

    def heads(self, event: Event) -> frozenset[str]:
        """What the event's ref is at the git host now, a tag also as what it stands for; none if it is not there.

        Raises UnknownProject and Unavailable. The project's token goes to the host of its own clone URL alone.
        """
        project = self._projects.read(event.project)
        url = https_url(event.clone_url or project.clone_url)
        if not url:
            raise Unavailable(
                f"what {event.revision.ref[:200]} is cannot be asked: project {project.name[:200]} has no "
                "clone URL that answers over HTTP; set cloneURL"
            )
        own = urlsplit(url).hostname == urlsplit(https_url(project.clone_url)).hostname
        token = project.token if own else ""
        try:
            return heads_of(url, event.revision.ref, token=token, timeout_seconds=self._timeout_seconds)
        except Unavailable as exc:
            raise Unavailable(f"{exc}, or make {SIDECAR_IMAGE} its vcsSidecar, and nobody has to ask") from exc
