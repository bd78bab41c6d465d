"""The commands of `bridgectl`, except those that cli.py replaces by programs of their own."""

import getpass
import json
import os
import sys
import time
import uuid
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bridge import errors, showing
from bridge import settings as settings_of
from bridge.choosing import Wanted, chosen, wanted
from bridge.client import MOST_RUNS, Asking, Client
from bridge.core.runs import Kind
from bridge.core.verdicts import Verdict
from bridge.errors import BridgeError, Misconfigured, Unavailable
from bridge.watching import Logs, Polling, is_closed

SUCCESS, USAGE, FAILED, NOT_FOUND, ASK_AGAIN, INTERRUPTED = 0, 1, 2, 4, 75, 130
SECRET_VARIABLE = "BRIDGE_SECRET"  # noqa: S105 - the variable's name

# The first that fits; every other error of ours is USAGE.
_CODES: tuple[tuple[type[BridgeError], int], ...] = (
    (errors.NotFound, NOT_FOUND),
    (errors.Conflict, USAGE),
    (errors.Forbidden, USAGE),
    (errors.EngineError, ASK_AGAIN),
)

_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red", "unknown": "magenta"}

HELP = """Durable pull-request pipelines for Brigade on Argo Workflows.

Exit codes of the commands that ask a gateway: 0 done, 1 usage or configuration, 2 the run did not succeed
(get --watch), 4 not found, 75 no usable answer (try again later), 130 interrupted.

Workflows also call `bridgectl brig run [PROJECT] -e EVENT` (a step; its --help says more) and `bridgectl exit`.
"""

app = typer.Typer(
    help=HELP,
    add_completion=False,
    rich_markup_mode=None,
    # A traceback with the values of variables could show a token.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Output(StrEnum):
    """Forms of what `get` shows."""

    JSON = "json"
    YAML = "yaml"


class ListOutput(StrEnum):
    """Forms of what `list` shows."""

    JSON = "json"
    YAML = "yaml"
    WIDE = "wide"


class Jobs(StrEnum):
    """How jobs run on one machine."""

    CONTAINER = "container"
    HOST = "host"


Url = Annotated[
    str | None, typer.Option(help="The gateway's address; BRIDGE_URL if not given.", show_default=False)
]
Kube = Annotated[
    bool,
    typer.Option(
        "--kube", help="No gateway: the cluster itself, with your kubeconfig's rights; or set BRIDGE_KUBE=true."
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option("-n", "--namespace", help="With --kube: of the records; BRIDGE_NAMESPACE.", show_default=False),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id.", show_default=False)]
Meant = Annotated[
    str,
    typer.Argument(
        metavar="RUN|SHA|PR",
        help="A run's id, 7 or more digits of a commit, or a pull request: 7 or acme/widgets#7.",
        show_default=False,
    ),
]
Directory = Annotated[Path, typer.Argument(metavar="DIR", show_default=False)]


def run(arguments: Sequence[str]) -> int:
    """Do what `arguments` ask for; answers the exit code. What goes wrong is said on stderr, a line each."""
    try:
        code = app(list(arguments) or ["--help"], prog_name="bridgectl", standalone_mode=False)
    except BridgeError as error:
        _complain(str(error))
        return _code_of(error)
    except typer.TyperException as error:
        format_message = getattr(error, "format_message", error.__str__)
        _complain(f"{format_message() or 'a command is missing'} (bridgectl --help says more)")
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return code if isinstance(code, int) else SUCCESS


@app.command()
def local(
    directory: Directory,
    *,
    port: Annotated[int | None, typer.Option(help="Where to listen on loopback; 0 takes a free one.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where runs are kept; DIR/.bridge if not given.")] = None,
    jobs: Annotated[Jobs | None, typer.Option(help="How jobs run; `host` gives them no isolation.")] = None,
    parallel_steps: Annotated[int | None, typer.Option(help="How many steps run at once.")] = None,
    container_command: Annotated[str | None, typer.Option(help="docker, podman or nerdctl.")] = None,
    node: Annotated[str | None, typer.Option(help="The Node.js binary.")] = None,
    public_url: Annotated[str | None, typer.Option(help="Where people reach the pages.")] = None,
    github_api_url: Annotated[str | None, typer.Option(help="GitHub's API.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run everything on this machine: gateway, controller and engine, for the projects in DIR."""
    if not directory.is_dir():
        raise Misconfigured(f"{directory} is no folder: give the one that holds project.yaml, or the one above it")
    settings = settings_of.load(
        projects_dir=directory,
        port=port,
        state_dir=state_dir,
        jobs=jobs.value if jobs else None,
        parallel_steps=parallel_steps,
        container_command=container_command,
        node=node,
        public_url=public_url,
        github_api_url=github_api_url,
        log_level=log_level,
    )
    from bridge.wiring.serving import serve  # noqa: PLC0415 - Flask, githubkit and Hera take a while

    raise typer.Exit(serve(settings))


@app.command("serve")
def serve_cluster(
    *,
    host: Annotated[str | None, typer.Option(help="Where to listen.")] = None,
    port: Annotated[int | None, typer.Option(help="The port to listen on.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run a gateway of the cluster; any number of them may run."""
    from bridge.wiring import gateways  # noqa: PLC0415 - as for local

    gateways.serve(settings_of.load(host=host, port=port, log_level=log_level))


@app.command()
def controller(
    *, log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None
) -> None:
    """Run a controller of the cluster; of several, one leads."""
    from bridge.wiring.controlling import control  # noqa: PLC0415 - as for local

    raise typer.Exit(control(settings_of.load(log_level=log_level)))


@app.command()
def doctor(
    *,
    namespace: Annotated[str | None, typer.Option(help="Of records and Workflows; BRIDGE_NAMESPACE.")] = None,
    brigade_namespace: Annotated[str | None, typer.Option(help="Brigade's; BRIDGE_BRIGADE_NAMESPACE.")] = None,
    release_namespace: Annotated[
        str | None, typer.Option(help="Of bridge's own Deployments; BRIDGE_LEASE_NAMESPACE.")
    ] = None,
    argo_namespace: Annotated[str, typer.Option(help="Of Argo's controller; else wherever one is found.")] = "",
    kubeconfig: Annotated[Path | None, typer.Option(help="BRIDGE_KUBECONFIG, KUBECONFIG, the pod's own.")] = None,
    kube_context: Annotated[str | None, typer.Option(help="The kubeconfig's context.")] = None,
    output: Annotated[Output | None, typer.Option("-o", "--output", help="Instead of lines.")] = None,
) -> None:
    """Look at a cluster: is all there that bridge needs, and what to do about what is not. It changes nothing.

    Each check is ok, a warning, wrong, or unknown because this account may not look. What the settings leave out
    is taken from the release's ConfigMaps, if they may be read. Exit codes: 0 nothing is wrong (there may be
    warnings), 2 something is, 75 the API server is away.
    """
    from bridge.wiring.doctor import examine  # noqa: PLC0415 - as for local

    settings = settings_of.load(
        namespace=namespace,
        brigade_namespace=brigade_namespace,
        lease_namespace=release_namespace,
        kubeconfig=kubeconfig,
        kube_context=kube_context,
    )
    found = examine(settings, argo_namespace=argo_namespace)
    if output is not None:
        _dump(found.content, output)
    else:
        for line in found.lines(_painted if sys.stdout.isatty() else lambda text, _status: text):
            typer.echo(line)
    raise typer.Exit(found.code)


@app.command()
def render(
    directory: Directory,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where to write.", show_default=False)],
    *,
    image: Annotated[str | None, typer.Option(help="The image of bridge in the steps.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Write this namespace into the templates.")] = None,
) -> None:
    """Make WorkflowTemplates of the pipeline files in DIR."""
    from bridge import rendering  # noqa: PLC0415 - Hera takes a while
    from bridge.core.workflows import DEFAULT_IMAGE  # noqa: PLC0415 - as well

    for path in rendering.render(directory, out, image=image or DEFAULT_IMAGE, namespace=namespace):
        typer.echo(path)


@app.command()
def demo(
    *, patience: Annotated[float, typer.Option(help="How many seconds a run may take.", min=1)] = 120.0
) -> None:
    """Show the main job on this machine, and check it: 0 only if all was observed."""
    from bridge.demonstrating import demo as demonstration  # noqa: PLC0415 - as for local

    raise typer.Exit(demonstration.main(patience))


@app.command("list")
def list_runs(
    *,
    project: Annotated[str, typer.Option(help="Of this project alone.")] = "",
    pipeline: Annotated[str, typer.Option(help="Of this pipeline alone.")] = "",
    sha: Annotated[str, typer.Option(help="Of this commit alone; 7 digits are enough.")] = "",
    pull_request: Annotated[int | None, typer.Option("--pr", help="Of this pull request alone.")] = None,
    branch: Annotated[str, typer.Option(help="Of pushes to this branch and pull requests into it.")] = "",
    verdict: Annotated[Verdict | None, typer.Option(help="That ended so.")] = None,
    search: Annotated[str, typer.Option(help="With all these words in what is shown of it.")] = "",
    open_only: Annotated[bool, typer.Option("--open", help="Open runs alone.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=MOST_RUNS, help="At most so many, the newest.")] = 50,
    output: Annotated[ListOutput | None, typer.Option("-o", "--output", help="Instead of a table.")] = None,
    url: Url = None,
    kube: Kube = False,
    namespace: Namespace = None,
) -> None:
    """List runs, the newest first."""
    commit = wanted(sha) if sha else None
    if commit is not None and not commit.commit:
        raise Misconfigured(f"--sha {sha[:80]!r} is no commit: write 7 or more of its digits")
    with _client(url, kube, namespace) as client:
        runs = client.list(
            project=project,
            pipeline=pipeline,
            sha=commit.commit if commit else "",
            pull_request=pull_request,
            branch=branch,
            verdict=verdict.value if verdict else "",
            search=search,
            open_only=open_only,
            limit=limit,
        )
    if output in {ListOutput.JSON, ListOutput.YAML}:
        _dump({"runs": runs}, Output(output.value))
        return
    if not runs:
        typer.echo("no runs", err=True)
        return
    _print(showing.runs_table(runs, now=time.time(), wide=output is ListOutput.WIDE))


@app.command()
def get(
    run_id: RunArgument,
    *,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Until it is closed; 2 if it did not succeed.")
    ] = False,
    output: Annotated[Output | None, typer.Option("-o", "--output", help="Instead of tables.")] = None,
    url: Url = None,
    kube: Kube = False,
    namespace: Namespace = None,
) -> None:
    """Show one run with its steps and builds."""
    with _client(url, kube, namespace) as client:
        run = _watched(Polling(client), run_id, quiet=output is not None) if watch else client.get(run_id)
    if output is not None:
        _dump(run, output)
    else:
        _show(run)
    if watch and run.get("verdict") != "succeeded":
        raise typer.Exit(FAILED)


@app.command()
def logs(
    run_id: RunArgument,
    step: Annotated[str, typer.Argument(help="Of this step alone.", show_default=False)] = "",
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run, or the step, is done.")
    ] = False,
    url: Url = None,
    kube: Kube = False,
    namespace: Namespace = None,
) -> None:
    """Show the logs of the newest build of each step."""
    with _client(url, kube, namespace) as client:
        wanted_logs = Logs(Polling(client), run_id, step)
        for line in wanted_logs.following() if follow else wanted_logs.so_far():
            typer.echo(line)


@app.command()
def explain(
    about: Annotated[
        str,
        typer.Argument(
            metavar="RUN|SHA|DELIVERY",
            help="A run's id, 7 or more digits of a commit, or a delivery's id (X-GitHub-Delivery).",
            show_default=False,
        ),
    ],
    *,
    project: Annotated[str, typer.Option(help="Look through this project's deliveries at GitHub alone.")] = "",
    output: Annotated[Output | None, typer.Option("-o", "--output", help="Instead of tables.")] = None,
    url: Url = None,
    kube: Kube = False,
    namespace: Namespace = None,
) -> None:
    """Tell what became of a delivery, a commit or a run, in order and with reasons, and what it waits for.

    A delivery that nobody wanted has no record: it is looked up in GitHub's log and matched again.
    """
    with _client(url, kube, namespace) as client:
        told = client.explain(about, project=project)
    if output is not None:
        _dump(told, output)
        return
    for event in told.get("events", []):
        _explain(event)
    for note in told.get("notes", []):
        _complain(str(note))


@app.command()
def retry(
    meant: Meant,
    *,
    only: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="This step alone; may be repeated.")
    ] = None,
    url: Url = None,
    kube: Kube = False,
    namespace: Namespace = None,
) -> None:
    """Run again what did not succeed. Of a commit or pull request: of all its runs that did not."""
    _act(meant, Kind.RETRY, _client(url, kube, namespace), only=tuple(only or ()))


@app.command()
def rerun(meant: Meant, *, url: Url = None, kube: Kube = False, namespace: Namespace = None) -> None:
    """Run everything again."""
    _act(meant, Kind.RERUN, _client(url, kube, namespace))


@app.command()
def cancel(meant: Meant, *, url: Url = None, kube: Kube = False, namespace: Namespace = None) -> None:
    """End what runs."""
    _act(meant, Kind.CANCEL, _client(url, kube, namespace))


@app.command()
def approve(run_id: RunArgument, *, url: Url = None, kube: Kube = False, namespace: Namespace = None) -> None:
    """Let a held run begin: of a pull request from a fork whose author the project does not build by itself."""
    if not wanted(run_id).run:
        raise Misconfigured(f"{run_id[:80]!r} is no run: approve the one that you looked at, by its id")
    _act(run_id, Kind.APPROVE, _client(url, kube, namespace))


@app.command()
def send(
    event: Annotated[
        str, typer.Argument(help="GitHub's name of the event: push, pull_request, …", show_default=False)
    ],
    file: Annotated[Path, typer.Argument(help="The payload; - is standard input.", show_default=False)],
    *,
    project: Annotated[str, typer.Option(help="Put this repository (acme/widgets) into the payload.")] = "",
    secret_file: Annotated[
        Path | None, typer.Option(help=f"Holds the secret to sign with; else {SECRET_VARIABLE} does.")
    ] = None,
    delivery: Annotated[str, typer.Option(help="The delivery's id; a new one if not given.")] = "",
    url: Url = None,
) -> None:
    """Deliver a recorded webhook as GitHub would, signed."""
    from bridge.sending import send as deliver  # noqa: PLC0415 - its name is this command's

    body = _read(file)
    if project:
        body = _of_project(body, project, file)
    address = f"{settings_of.load(url=url).url}/events/github"
    status, answer = deliver(address, event, body, secret=_secret(secret_file), delivery=delivery)
    if isinstance(answer, dict):
        typer.echo(json.dumps(answer))
    _check_delivered(status, answer)


@app.command(hidden=True)
def settings() -> None:
    """Print docs/settings.md."""
    typer.echo(settings_page(), nl=False)


def settings_page() -> str:
    """The text of docs/settings.md."""
    return (
        "# Settings\n\n"
        "<!-- Made by `bridgectl settings > docs/settings.md`; change bridge/settings.py instead. -->\n\n"
        "All are environment variables. Options of `bridgectl` win over them.\n\n"
        f"{settings_of.settings_table()}"
    )


def _code_of(error: BridgeError) -> int:
    return next((code for kind, code in _CODES if isinstance(error, kind)), USAGE)


def _complain(message: str) -> None:
    for line in message.splitlines():
        typer.echo(f"bridgectl: {showing.clean(line)}", err=True)


def _client(url: str | None, kube: bool, namespace: str | None) -> Asking:
    """Who is asked: the cluster itself where that is wanted and no gateway is named with it, else a gateway."""
    settings = settings_of.load(url=url, kube=kube or None, namespace=namespace)
    if url is None and settings.kube:
        from bridge.wiring.direct import DirectClient  # noqa: PLC0415 - as for local

        return DirectClient(settings, dict(os.environ))
    return Client(settings.url, settings.token.get_secret_value())


def _explain(event: dict[str, Any]) -> None:
    """One event, from its delivery to what its runs wait for."""
    named = [str(event.get(key) or "") for key in ("event", "project", "sha")]
    typer.echo(showing.clean(" ".join([*filter(None, named), f"delivery {event.get('delivery')}"])))
    if event.get("received"):
        typer.echo("\nReceived:")
        _print(showing.received_table(event["received"]))
    if event.get("matched"):
        typer.echo("\nMatched:")
        for line in showing.matched_lines(event["matched"]):
            typer.echo(line)
    for run in event.get("runs", []):
        typer.echo(f"\nRun {showing.clean(run.get('id'))}:")
        _print(showing.timeline_table(run.get("timeline") or []))
        typer.echo(f"\n{_now(run)}")
        _echo_next(run)
    if event.get("ignored"):
        typer.echo(f"\nNow: nothing runs for it: {showing.clean(event['ignored'])}")


def _watched(polling: Polling, run_id: str, *, quiet: bool) -> dict[str, Any]:
    """The run when it is closed; what happens meanwhile is told as it happens."""
    shown: set[tuple[str, str]] = set()
    run: dict[str, Any] = {}
    for run in polling.states(run_id):
        for moment in run.get("timeline", []) if not quiet else []:
            line = (str(moment.get("at") or ""), showing.clean(moment.get("what")))
            if line not in shown:
                shown.add(line)
                typer.echo(f"{line[0]:24}  {line[1]}")
    if not quiet:
        typer.echo("")
    return run


def _show(run: dict[str, Any]) -> None:
    now = time.time()
    _print(showing.run_table(run, now=now))
    if run.get("steps") or run.get("exit_builds"):
        typer.echo("")
        _print(showing.steps_table(run, now=now))
    _echo_next(run)


def _now(run: dict[str, Any]) -> str:
    if run.get("waits_for"):
        return f"Now: it waits for {showing.clean(run['waits_for'])}"
    return f"Now: it is {'closed' if is_closed(run) else 'open'}, {showing.clean(showing.state_of(run))}"


def _echo_next(run: dict[str, Any]) -> None:
    lines = showing.next_lines(run)
    if lines:
        typer.echo("\nNext:")
    for line in lines:
        typer.echo(line)


def _act(meant: str, kind: Kind, asking: Asking, *, only: tuple[str, ...] = ()) -> None:
    """Ask each run that is meant. One that refuses does not keep the others from being asked."""
    what = wanted(meant)
    code = SUCCESS
    with asking as client:
        for run_id, follows in _meant(client, what, kind):
            try:
                # A request id of its own for each run: a POST whose answer was lost is sent again with the same.
                request = str(uuid.uuid4())
                acted = client.act(run_id, kind, request=request, who=_who(), only=only, follows=follows)
            except BridgeError as error:
                _complain(str(error))
                code = code or _code_of(error)
                continue
            typer.echo(f"{run_id}: {showing.clean(acted.message)}")
    if code:
        raise typer.Exit(code)


def _meant(client: Asking, what: Wanted, kind: Kind) -> list[tuple[str, int | None]]:
    """The runs that are meant, each with the attempt that was looked at."""
    if what.run:
        return [(what.run, None)]
    runs = client.list(project=what.project, sha=what.commit, pull_request=what.pull_request)
    attempts = {str(run.get("id")): run.get("attempt") for run in runs}
    return [(run_id, attempts.get(run_id)) for run_id in chosen(what, kind, runs)]


def _who() -> str:
    """Whoever is logged in, for people to read; nobody checks it."""
    try:
        return showing.clean(getpass.getuser())[:100]
    except (KeyError, OSError):
        return ""


def _secret(file: Path | None) -> str:
    """What signs a delivery. Never an argument: those are seen by everybody on the machine."""
    if file is not None:
        return _text_of(file).strip()
    return settings_of.load().secret.get_secret_value()


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return file.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}") from error


def _text_of(file: Path) -> str:
    try:
        return _read(file).decode()
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{file} is no text") from error


def _of_project(body: bytes, project: str, file: Path) -> bytes:
    try:
        payload = json.loads(body)
        payload["repository"]["full_name"] = project
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Misconfigured(
            f"{file} is no payload with a repository, so --project cannot be put into it"
        ) from error
    return json.dumps(payload).encode()


def _check_delivered(status: int, answer: object) -> None:
    if status in {200, 202}:
        return
    detail = answer.get("detail", "") if isinstance(answer, dict) else answer
    told = f"the gateway answered {status}: {showing.clean(detail)[:300]}"
    if status == 429 or status >= 500:  # noqa: PLR2004 - not stored
        raise Unavailable(f"{told}; send it again with the same --delivery")
    raise Misconfigured(told)


def _painted(text: str, status: str) -> str:
    return typer.style(text, fg=_COLOURS.get(status))


def _print(table: Any) -> None:
    showing.show(table, sys.stdout)


def _dump(content: dict[str, Any], output: Output) -> None:
    """ASCII with escapes, so that no foreign character reaches the terminal."""
    if output is Output.JSON:
        typer.echo(json.dumps(content, indent=2))
    else:
        typer.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=False), nl=False)
