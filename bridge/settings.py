"""The settings: the only reader of the environment, except in the step's process (bridge/step.py)."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bridge.errors import BadSettings

PREFIX = "BRIDGE_"
HEADER = r"^[A-Za-z0-9-]{1,100}$"
"""What a header may be called."""


class Settings(BaseSettings):
    """What can be set, by environment variables with the prefix `BRIDGE_`; docs/settings.md is made from this."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    projects_dir: Path = Field(Path(), description="The folder of project folders, or one project's folder.")
    state_dir: Path | None = Field(
        None, description="Where runs, builds and logs are kept; `.bridge` in the projects' folder if not set."
    )
    host: str = Field(
        "127.0.0.1", description="The address to listen on. One machine: loopback, where reading is free."
    )
    port: int = Field(8080, ge=0, le=65535, description="The port to listen on; 0 takes a free one.")
    public_url: str = Field("", description="Where people reach the pages; without it statuses have no link.")
    github_api_url: str = Field(
        "https://api.github.com", description="GitHub's API; `https://HOST/api/v3` for GitHub Enterprise Server."
    )
    github_app_id: str = Field("", description="The GitHub App's id; empty: none, projects' tokens alone.")
    github_app_key_file: Path | None = Field(None, description="The file with the GitHub App's private key, PEM.")
    github_checks: bool = Field(
        True, description="With a GitHub App that may write them runs are check runs there, else commit statuses."
    )
    github_app_webhook_secret: SecretStr = Field(
        SecretStr(""), description="Signs the GitHub App's webhooks; empty: none does."
    )
    webhook_url: str = Field(
        "", description="Where GitHub's webhooks point to; else `BRIDGE_PUBLIC_URL` with `/events/github`, if set."
    )
    sweep_minutes: float = Field(
        5,
        ge=0,
        le=720,
        description="So often GitHub's logs are looked through for deliveries that never arrived; 0: never.",
    )
    default_shared_secret: SecretStr = Field(
        SecretStr(""), description="Signs webhooks of projects that have no secret of their own; empty: none does."
    )
    read_tokens: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Tokens that may read pages and API, each `token` or `name=token`, separated by commas."
    )
    act_tokens: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Tokens that may also retry, rerun and cancel; alike."
    )
    event_tokens: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Tokens that may send CloudEvents 1.0 of any project; alike."
    )
    anonymous_read: bool = Field(False, description="Everybody who reaches the gateway may read.")
    session_hours: float = Field(
        12, gt=0, le=720, description="So long a browser stays signed in that was given a token."
    )
    proxy_addresses: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="An authenticating proxy's own addresses (`10.1.2.3`, `10.1.0.0/16`), separated by commas."
    )
    proxy_user_header: str = Field(
        "X-Forwarded-User", pattern=HEADER, description="The proxy's header that names who asks."
    )
    proxy_groups_header: str = Field(
        "X-Forwarded-Groups", pattern=HEADER, description="The proxy's header with the names of their groups."
    )
    proxy_act_users: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Who of those that the proxy names may also retry, rerun and cancel, separated by commas."
    )
    proxy_act_groups: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Whoever is in one of these groups may, too; separated by commas."
    )
    badges: bool = Field(True, description="Badges are for everybody; else for whoever may read.")
    jobs: Literal["container", "host"] = Field(
        "container", description="One machine: how a build's jobs run; `host` runs them without any isolation."
    )
    container_command: str = Field(
        "", description="One machine: the container engine's command; else docker, podman or nerdctl, if it works."
    )
    node: str = Field("", description="One machine: the Node.js binary; else `node`, or the one from PyPI.")
    parallel_steps: int = Field(4, ge=1, le=256, description="One machine: how many steps run at once.")
    poll_seconds: float = Field(
        0.5, gt=0, le=60, description="One machine: how often the controller looks at open runs."
    )
    resync_seconds: float = Field(
        20.0,
        gt=0,
        le=300,
        description="Cluster: an open run is looked at so often, also when nothing is heard of it.",
    )
    namespace: str = Field(
        "", description="Cluster: of records, Workflows and WorkflowTemplates; else the pod's or kubeconfig's own."
    )
    brigade_namespace: str = Field(
        "", description="Cluster: Brigade's; else `BRIGADE_NAMESPACE`, else `default`, as for `brig`."
    )
    lease_namespace: str = Field("", description="Cluster: of the controllers' Lease; else the pod's own.")
    kubeconfig: Path | None = Field(
        None, description="Cluster: else `KUBECONFIG`, the pod's own, `~/.kube/config`."
    )
    kube_context: str = Field("", description="Cluster: the kubeconfig's context; else its current one.")
    argo_instance_id: str = Field(
        "", description="Cluster: the `instanceID` of the Argo controller, if it has one."
    )
    fallback_url: str = Field(
        "",
        description="Cluster: deliveries of projects without a pipeline are passed on to this gateway, unchanged.",
    )
    step_service_account: str = Field(
        "bridge-step", description="Cluster: the steps' ServiceAccount, which may ask for its run's GitHub token."
    )
    controller_host: str = Field(
        "0.0.0.0",  # noqa: S104 - a kubelet asks by the pod's address
        description="Cluster: where the controller's probes and metrics listen.",
    )
    controller_port: int = Field(8081, ge=0, le=65535, description="Cluster: their port; 0 takes a free one.")
    retention_days: float = Field(
        30, ge=7, description="How long closed runs are kept; never below 7, in which repeats are recognised."
    )
    retention_runs: int = Field(
        0, ge=0, description="Cluster: so many closed runs of a pipeline are kept, once 7 days old; 0: no bound."
    )
    notify_file: Path | None = Field(
        None, description="The file with the endpoints of notifications (docs/notifications.md); else none."
    )
    notify_days: float = Field(
        3, gt=0, le=7, description="What an endpoint has not taken after so many days is given up."
    )
    web_workers: int = Field(2, ge=1, le=64, description="gunicorn's worker processes.")
    web_threads: int = Field(8, ge=1, le=128, description="gunicorn's threads in each worker.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged.")
    url: str = Field("http://127.0.0.1:8080", description="Commands: the gateway to talk to.")
    kube: bool = Field(
        False, description="Commands: no gateway; the cluster itself, with the rights of your kubeconfig."
    )
    token: SecretStr = Field(SecretStr(""), description="Commands: the Bearer token to send.")
    secret: SecretStr = Field(SecretStr(""), description="Commands: signs what `bridgectl send` posts.")

    @field_validator(
        "read_tokens",
        "act_tokens",
        "event_tokens",
        "proxy_addresses",
        "proxy_act_users",
        "proxy_act_groups",
        mode="before",
    )
    @classmethod
    def _by_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("proxy_addresses")
    @classmethod
    def _not_everybody(cls, value: tuple[IPv4Network | IPv6Network, ...]) -> object:
        if any(not network.prefixlen for network in value):
            raise ValueError("everybody could say who they are: name the proxy's own addresses")
        return value

    @field_validator("github_api_url", "public_url", "url", "fallback_url", "webhook_url")
    @classmethod
    def _http_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("has to begin with https:// or http://")
        return value.rstrip("/")

    @property
    def state(self) -> Path:
        """The absolute state folder."""
        return (self.state_dir or self.projects_dir / ".bridge").resolve()

    @property
    def projects(self) -> Path:
        """The absolute projects folder."""
        return self.projects_dir.resolve()

    @property
    def webhook(self) -> str:
        """Where GitHub's webhooks point to; empty if nobody said."""
        return self.webhook_url or (f"{self.public_url}/events/github" if self.public_url else "")

    @property
    def retention_seconds(self) -> float:
        """`retention_days` in seconds."""
        return self.retention_days * 86400.0


def load(**given: object) -> Settings:
    """The settings from the environment and `given`, which wins. Raises BadSettings naming each variable."""
    wanted = {name: value for name, value in given.items() if value is not None}
    try:
        return Settings(**wanted)  # type: ignore[arg-type]
    except ValidationError as error:
        lines = [f"{PREFIX}{'.'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors()]
        raise BadSettings("; ".join(lines)) from None


def settings_table() -> str:
    """The settings as the table that docs/settings.md holds."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = "" if default in ((), None) or isinstance(default, SecretStr) else f"`{default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {'' if shown == '``' else shown} | {field.description} |")
    return "\n".join(rows) + "\n"
