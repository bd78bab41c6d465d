"""A Brigade project, as far as bridge needs to know it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_ALLOWED_AUTHORS = ("OWNER", "MEMBER", "COLLABORATOR")
AUTHOR_ASSOCIATIONS = (
    *DEFAULT_ALLOWED_AUTHORS,
    "CONTRIBUTOR",
    "FIRST_TIME_CONTRIBUTOR",
    "FIRST_TIMER",
    "MANNEQUIN",
    "NONE",
)
"""GitHub's author associations."""


@dataclass(frozen=True)
class Project:
    """One project. Nothing secret is in its repr.

    On one machine it is read from a folder's `project.yaml`, in a cluster from Brigade's project Secret.
    """

    name: str
    """As the git host spells it: `acme/widgets`."""
    id: str
    """`brigade-<sha256(name)[:54]>`, as in Brigade's routes and Secret names."""
    shared_secret: str = field(default="", repr=False)
    second_secret: str = field(default="", repr=False)
    """Also accepted, so that secrets can be rotated."""
    generic_secret: str = field(default="", repr=False)
    """Brigade's genericGatewaySecret; empty means that generic routes refuse."""
    token: str = field(default="", repr=False)
    """The project's `github.token`, for statuses."""
    repository: str = ""
    """The repository's full name; the project's name if empty."""
    clone_url: str = ""
    default_pipeline: bool = False
    """The project opted in to the default pipeline."""
    allowed_authors: tuple[str, ...] = DEFAULT_ALLOWED_AUTHORS
    """Author associations whose pull requests from forks are built."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What a script sees as `p.secrets`."""
    folder: str = ""
    """One machine: the absolute path of the project's folder; empty in a cluster."""
    source: str = ""
    """One machine: where its git repository or plain source folder is, an absolute path or a URL; may be empty."""
    script: str = "brigade.js"
    """The script's path in the source (Brigade's brigadejsPath)."""
    vcs_sidecar: str = ""
    """In a cluster: the image that fetches the source; empty: none does."""
    script_path: str = ""
    """In a cluster: what the project itself says is the script in the source (brigadejsPath), if it says so."""
    config_path: str = ""
    """The same of brigade.json (brigadeConfigPath)."""
    allow_privileged_jobs: bool = False
    allow_host_mounts: bool = False

    @property
    def signing_secrets(self) -> tuple[str, ...]:
        """The secrets that may have signed a webhook of this project, without empty ones."""
        return tuple(secret for secret in (self.shared_secret, self.second_secret) if secret)
