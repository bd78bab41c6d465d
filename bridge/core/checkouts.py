"""Which revision a build is told, so that it builds the run's commit (design.md, On the wire: `checkout`).

Brigade's own sidecar fetches the head of the ref and looks at no commit while there is a ref. Ours, named by the
project's `vcsSidecar`, checks out the commit and keeps the ref.
"""

from collections.abc import Collection
from dataclasses import replace

from bridge.core.events import Revision
from bridge.core.pipelines import Checkout

SIDECAR_IMAGE = "brigade-argo-bridge-sidecar"
"""The name of our sidecar's image, in whatever registry, folder and version."""


def keeps_commit(image: str) -> bool:
    """Whether a project's sidecar is ours."""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0] == SIDECAR_IMAGE


def told(revision: Revision, checkout: Checkout | None, *, sidecar: str) -> Revision:
    """The revision to tell a build of a project with this sidecar image; an empty one fetches nothing."""
    if checkout is Checkout.COMMIT and revision.commit and not keeps_commit(sidecar):
        return replace(revision, ref="")
    return revision


def depends_on_head(revision: Revision, checkout: Checkout | None, *, sidecar: str, attempt: int) -> bool:
    """Whether a build of this attempt is right only if the ref still points at the commit: to be asked first.

    The first attempt builds what Brigade would build.
    """
    free = attempt <= 1 or checkout is not None or not sidecar or keeps_commit(sidecar)
    return not free and bool(revision.commit and revision.ref) and revision.ref != revision.commit


def moved(revision: Revision, heads: Collection[str]) -> str:
    """Why no build is made, if none of `heads`, which is what the ref is now, is the commit; else nothing."""
    if revision.commit in heads:
        return ""
    where = f"points at {min(heads)[:12]} now" if heads else "is not there any more"
    return (
        f"{revision.ref[:200]} {where}, and Brigade's sidecar would build that, not this run's commit "
        f"{revision.commit[:12]}; make {SIDECAR_IMAGE} the project's vcsSidecar, "
        "or say `checkout: ref` or `checkout: commit` in the pipeline"
    )
