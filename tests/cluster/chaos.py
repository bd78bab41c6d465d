"""Runs of real processes on a real API server, each with a fault; counted by the API server and by GitHub.

The gateway and two controllers are bridge's own, started again when they die; each step is a real `brig run`. Argo,
Brigade, the kubelet and GitHub are played. Everything is chosen by one seed.
"""

import contextlib
import hashlib
import itertools
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from typing import Any, Self

from bridge.core import names
from bridge.core.names import project_id, workflow_name
from bridge.core.permissions import CONTROLLER, GATEWAY, STEP, Place
from bridge.core.pipelines import Exit, Pipeline, Step, Trigger
from bridge.core.runs import Kind, Phase, Run
from bridge.core.workflows import workflow_template
from bridge.demonstrating.fake_github import RESET, FakeGitHub
from bridge.demonstrating.fake_replies import Reply
from bridge.errors import BridgeError
from bridge.flows.acting import act
from tests.cluster import faults as proxy
from tests.cluster import player
from tests.cluster.auditing import audited
from tests.cluster.chaos_controller import LEASE_SECONDS
from tests.cluster.client import ApiError, path
from tests.cluster.control_plane import _die_with_parent
from tests.cluster.controlled import ROOT, PlayingBrigade, Realm
from tests.cluster.faults import Faults
from tests.cluster.test_serve import push, status
from tests.ports import free_ports

TOGETHER = 8
"""Runs that are under way at once."""
PROJECTS = 10
"""Each with a token of its own: GitHub's limits are a credential's."""
TIMEOUT_SECONDS = 60.0
LATE_SECONDS = 4.0
"""The timeout of the pipeline whose runs are suspended."""
PATIENCE_SECONDS = 300.0
HELD = "tests.example.com/chaos"
FINAL = frozenset({"success", "failure", "error"})
LIMIT_SECONDS = 2
AWAY_SECONDS = 4.0

WRITE = ("patch", "secrets")
READ = ("get", "workflows")


class ChaosGitHub(FakeGitHub):
    """With troubles for single commits."""

    def __init__(self, tokens: list[str]) -> None:
        super().__init__(tokens=tokens)
        self._troubles: dict[str, Callable[[], Reply | None]] = {}
        self._lock = threading.Lock()
        self.met: Counter[str] = Counter()
        """By commit: how often a trouble was met."""

    def trouble(self, sha: str, of: Callable[[], Reply | None]) -> None:
        """Answer posts for this commit with what `of` says, until it says None."""
        with self._lock:
            self._troubles[sha] = of

    def answer(self, method: str, target: str, headers: Message, body: bytes) -> Reply | None:
        sha = target.rpartition("/")[2] if method == "POST" and "/statuses/" in target else ""
        with self._lock:
            said = self._troubles[sha]() if sha in self._troubles else None
            self.met[sha] += said is not None
        if said is None:
            return super().answer(method, target, headers, body)
        if said is RESET:
            super().answer(method, target, headers, body)
        return said


def times(reply: Reply, left: int) -> Callable[[], Reply | None]:
    """This answer, so many times."""
    count = iter(range(left))
    return lambda: reply if next(count, None) is not None else None


def until(reply: Reply, seconds: float) -> Callable[[], Reply | None]:
    """This answer, for so long from the first question on."""
    ends: list[float] = []

    def say() -> Reply | None:
        ends.append(time.monotonic() + seconds)
        return reply if time.monotonic() < ends[0] else None

    return say


@dataclass
class Trial:
    """One run and its fault."""

    number: int
    kind: str
    chance: random.Random
    run: str = ""
    fired: bool = False
    answered: bool = False
    accepted: float = 0.0
    seconds: float = 0.0
    """From when it was accepted, or from the end of its fault if that was later, to its close."""
    verdict: str = ""
    trouble: str = ""

    @property
    def delivery(self) -> str:
        return f"chaos-{self.number}"

    @property
    def commit(self) -> str:
        return hashlib.sha1(self.delivery.encode(), usedforsecurity=False).hexdigest()

    @property
    def project(self) -> str:
        return f"acme/p{self.number % PROJECTS}"

    @property
    def pipeline(self) -> str:
        return "late" if self.kind == "workflow suspended" else "push"


@dataclass
class Process:
    """One of bridge's, which is started again when it dies."""

    start: Callable[[], subprocess.Popen[bytes]]
    now: subprocess.Popen[bytes] = field(init=False)
    starts: int = 1

    def __post_init__(self) -> None:
        self.now = self.start()

    def kill(self) -> None:
        """SIGKILL, to all that it started as well."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.now.pid, signal.SIGKILL)
        self.now.wait()

    def look(self) -> None:
        if self.now.poll() is not None:
            self.now = self.start()
            self.starts += 1

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.now.pid, signal.SIGCONT)
            os.killpg(self.now.pid, signal.SIGTERM)
        try:
            self.now.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()


class Chaos:
    """The world. Use it as a context manager."""

    def __init__(self, realm: Realm, brigade: PlayingBrigade, seed: int) -> None:
        self.realm = realm
        self.brigade = brigade
        self.chance = random.Random(seed)
        self.admin = realm.admin
        self.faults = Faults(realm.control_plane)
        self.github = ChaosGitHub([f"token-{number}" for number in range(PROJECTS)])
        self._stack = contextlib.ExitStack()
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._paused = threading.Lock()
        """One controller is stopped at a time, else nobody leads."""

    def __enter__(self) -> Self:
        realm = self.realm
        for number in range(PROJECTS):
            self.admin.create(path("secrets", realm.brigade_namespace), _project(number))
        for name, seconds in (("push", TIMEOUT_SECONDS), ("late", LATE_SECONDS)):
            one = Pipeline(
                name,
                tuple(f"acme/p{number}" for number in range(PROJECTS)),
                (Trigger("push", branches=(name,)),),
                (Step("test", events=("test",)),),
                exit=Exit(timeout_seconds=30.0),
                timeout_seconds=seconds,
            )
            self.admin.create(path("workflowtemplates", realm.namespace), workflow_template(one))
        self._stack.enter_context(self.faults)
        self._stack.enter_context(self.github)
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.step_access = realm.access(STEP)
        gateway = self.faults.of(realm.access(GATEWAY))
        controller = self.faults.of(realm.access(CONTROLLER))
        self.gateway = Process(
            partial(self._begin, "gateway", gateway, "bridge.cli", "serve", "--port", f"{port}")
        )
        self.controllers = [
            Process(partial(self._begin, f"controller-{one}", controller, "tests.cluster.chaos_controller"))
            for one in "ab"
        ]
        for one in (self.gateway, *self.controllers):
            self._stack.callback(one.end)
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        self._stack.callback(thread.join, 60)
        self._stack.callback(self._stopping.set)
        realm.until(lambda: status(f"{self.url}/readyz") == 200, "the gateway to be ready")
        realm.until(self.leader, "a controller to lead")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _begin(self, log: str, access: Any, *argv: str) -> subprocess.Popen[bytes]:
        with (self.realm.folder / f"{log}.log").open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", *argv],
                env=self.realm.environment(access, BRIDGE_GITHUB_API_URL=self.github.url, BRIDGE_WEB_WORKERS="1"),
                stdout=file,
                stderr=file,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it makes one system call
            )

    def _watch(self) -> None:
        while not self._stopping.wait(0.1):
            for one in (self.gateway, *self.controllers):
                one.look()

    def holder(self) -> str:
        """Who holds the Lease."""
        with contextlib.suppress(ApiError):
            found = self.admin.get(path("leases", self.realm.places[Place.RELEASE], "bridge-controller"))
            return str(found["spec"].get("holderIdentity") or "")
        return ""

    def leader(self) -> Process | None:
        """The controller that holds the Lease, by the process id in its identity; None: it is not among them."""
        holder = self.holder()
        return next((one for one in self.controllers if holder.startswith(f"controller-{one.now.pid}-")), None)

    def run_all(self, runs: int) -> list[Trial]:
        """So many runs; what became of each."""
        kinds = list(KINDS)
        chosen = [kinds[number % len(kinds)] for number in range(runs)]
        self.chance.shuffle(chosen)
        trials = [Trial(number, kind, random.Random(self.chance.random())) for number, kind in enumerate(chosen)]
        with ThreadPoolExecutor(TOGETHER) as pool:
            list(pool.map(self._try, trials))
        return trials

    def _try(self, trial: Trial) -> None:
        try:
            Played(self, trial).play()
        except AssertionError as failed:
            trial.trouble = str(failed)[:1000]
        except Exception as failed:
            trial.trouble = f"{type(failed).__name__}: {failed}"[:1000]


class Played:
    """Plays Argo for one run, and its fault."""

    def __init__(self, chaos: Chaos, trial: Trial) -> None:
        self.chaos = chaos
        self.trial = trial
        self.realm = chaos.realm
        self.admin = chaos.admin
        self.over = 0.0
        """When its fault was over."""
        self._step: subprocess.Popen[bytes] | None = None
        self._step_of = ""
        self._go = 0.0
        """When the builds may end."""
        self._rules: list[proxy.Rule] = []

    def play(self) -> None:
        trial = self.trial
        pipeline = trial.pipeline
        trial.run = names.run_id(
            project=trial.project, provider="github", pipeline=pipeline, delivery=trial.delivery
        )
        fault = KINDS[trial.kind]
        if fault.before is not None:
            fault.before(self)
        self._deliver()
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while not self._closed():
                assert time.monotonic() < deadline, f"not closed: {self._run()}"
                self._argo()
                self._fault(fault)
                time.sleep(0.1)
        finally:
            self._end_step()
        for rule in self._rules:
            trial.fired = trial.fired or rule.used > 0
        if fault.after is not None:
            fault.after(self)
        run = self._run()
        assert run is not None
        trial.verdict = str(run.verdict)
        since = max(trial.accepted, self.over)
        trial.seconds = max(0.0, (run.closed or 0.0) - since)

    # Delivering

    def _deliver(self) -> None:
        """As GitHub and a sweep do: again until it is taken."""
        trial = self.trial
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(Exception):
                answer = self.send()
                if answer == 202:
                    trial.answered = True
                    trial.accepted = time.time()
                    return
            assert time.monotonic() < deadline, "the delivery is not taken"
            time.sleep(0.2)

    def send(self) -> int:
        """Once; the status of the answer."""
        return push(self.chaos.url, self.trial.delivery, project=self.trial.project, branch=self.trial.pipeline)[
            2
        ].status

    # Argo

    def _run(self) -> Run | None:
        with contextlib.suppress(BridgeError):
            return self.realm.runs.read(self.trial.run)
        return None

    def _closed(self) -> bool:
        run = self._run()
        return run is not None and run.phase is Phase.CLOSED and run.applicable_act is None

    def workflow(self) -> dict[str, Any] | None:
        """Of the newest attempt."""
        run = self._run()
        if run is None or run.attempt is None:
            return None
        with contextlib.suppress(ApiError):
            found: dict[str, Any] = self.admin.get(
                path("workflows", self.realm.namespace, workflow_name(run.id, run.attempt.n))
            )
            return found
        return None

    def _argo(self) -> None:
        found = self.workflow()
        if found is None or found["metadata"].get("deletionTimestamp"):
            return
        name, spec = found["metadata"]["name"], found["spec"]
        phase = (found.get("status") or {}).get("phase")
        if phase in player.ENDED:
            return
        if spec.get("shutdown") and not spec.get("suspend"):
            self._end_step()
            self._replace(found, player._end)
            return
        if spec.get("suspend") and self._step is None:
            return
        if phase is None:
            self._replace(found, _running)
        if self._step is None or self._step_of != name:
            self._begin_step(name)
        elif self._step.poll() is not None:
            self._step_ended(name, self._step.returncode)
        if self._go and time.monotonic() >= self._go:
            self.chaos.brigade.end(self.trial.run, "test", int(self.trial.number % 4 == 3))

    def _begin_step(self, name: str) -> None:
        run = self._run()
        assert run is not None
        assert run.attempt is not None
        self._end_step()
        environment = self.realm.environment(
            self.chaos.step_access, BRIDGE_RUN=run.id, BRIDGE_ATTEMPT=str(run.attempt.n), BRIDGE_STEP="test"
        )
        with (self.realm.folder / "steps.log").open("ab") as file:
            self._step = subprocess.Popen(
                [sys.executable, "-P", "-m", "bridge.step", "-e", "test", "--tries", "1"],
                env=environment,
                stdout=file,
                stderr=file,
                cwd=ROOT,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it makes one system call
            )
        self._step_of = name

    def _step_ended(self, name: str, code: int) -> None:
        if code in {75, 64, 137, 143} or code < 0:
            self._step = None  # Argo starts it again
            return
        exit_code = {"outputs": {"exitCode": str(code)}}
        with contextlib.suppress(ApiError):
            self.realm.end_workflow(name, "Succeeded" if code == 0 else "Failed", **exit_code)

    def _end_step(self) -> None:
        if self._step is not None and self._step.poll() is None:
            self._step.terminate()
            self._step.wait(60)
        self._step = None

    def _replace(self, found: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
        found["metadata"].setdefault("labels", {})
        change(found)
        with contextlib.suppress(ApiError):
            self.admin.replace(path("workflows", self.realm.namespace, found["metadata"]["name"]), found)

    # Its fault

    def build(self) -> str:
        """The id of a build of its step that runs; empty if none does."""
        for one in self.chaos.brigade.builds(self.trial.run):
            labels = one["labels"]
            going = labels.get("status") == "accepted" and not names.is_exit_step(labels[names.STEP_LABEL])
            if going and labels["build"] not in self.chaos.brigade._done:
                return str(labels["build"])
        return ""

    def _fault(self, fault: "Fault") -> None:
        if self._go:
            return
        if fault.during is None or self.trial.fired:
            if self.build() or (self.trial.fired and not fault.needs_build):
                self._let_go()
            return
        if fault.needs_build and not self.build():
            return
        if not fault.needs_build and self.workflow() is None:
            return
        time.sleep(self.trial.chance.uniform(0, 0.5))
        if fault.during(self):
            self.trial.fired = True
            self.over = time.time()

    def _let_go(self) -> None:
        self._go = time.monotonic() + self.trial.chance.uniform(0.1, 1.0)

    def rule(self, then: proxy.Fault, *verbs: tuple[str, str]) -> None:
        """This, to one of its requests by bridge; it counts once it is met."""
        verb, resource = self.trial.chance.choice(verbs)
        run = self.trial.run
        self._rules.append(
            self.chaos.faults.when(verb, resource, then=then, times=self.trial.chance.randint(1, 2), name=run)
        )


@dataclass(frozen=True)
class Fault:
    """What happens to a run: before it is delivered, while it goes on, and when it is closed."""

    before: Callable[[Played], object] | None = None
    during: Callable[[Played], bool] | None = None
    after: Callable[[Played], object] | None = None
    needs_build: bool = True
    """`during` comes while a build of it runs; else while its Workflow is there."""


def _controller_killed(played: Played) -> bool:
    leader = played.chaos.leader()
    if leader is None:
        return False
    leader.kill()
    return True


def _controller_paused(played: Played) -> bool:
    """SIGSTOP for longer than its Lease; another one leads meanwhile."""
    chaos = played.chaos
    with chaos._paused:
        leader, holder = chaos.leader(), chaos.holder()
        if leader is None:
            return False
        os.killpg(leader.now.pid, signal.SIGSTOP)
        try:
            time.sleep(LEASE_SECONDS + 1.0)
            deadline = time.monotonic() + 30
            while chaos.holder() == holder and time.monotonic() < deadline:
                time.sleep(0.1)
            return chaos.holder() != holder
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.now.pid, signal.SIGCONT)


def _gateway_killed(played: Played) -> None:
    """While it takes the delivery."""
    delay = played.trial.chance.uniform(0.0, 0.03)
    killer = threading.Timer(delay, played.chaos.gateway.kill)
    killer.start()
    with contextlib.suppress(Exception):
        played.send()
    killer.join()
    played.trial.fired = True


def _proxied(then: proxy.Fault, *verbs: tuple[str, str]) -> Fault:
    return Fault(before=lambda played: played.rule(then, *verbs))


def _expired(played: Played) -> bool:
    """All watches end, and what they ask for is too old."""
    chaos = played.chaos
    rule = chaos.faults.when("watch", "secrets", then=proxy.error_event(410), times=1)
    chaos.faults.cut("watch")
    rule.await_use()
    return True


def _deleted(played: Played) -> bool:
    found = played.workflow()
    if found is None:
        return False
    played.admin.delete(path("workflows", played.realm.namespace, found["metadata"]["name"]))
    return True


def _held(played: Played) -> bool:
    found = played.workflow()
    if found is None:
        return False
    where = path("workflows", played.realm.namespace, found["metadata"]["name"])
    played.admin.patch(where, {"metadata": {"finalizers": [HELD]}})
    played.admin.delete(where)
    return True


def _released(played: Played) -> None:
    """At last the finalizer goes, so that the namespace can."""
    where = path("workflows", played.realm.namespace, played.trial.run)
    found = played.admin.get(where)
    assert found["metadata"].get("deletionTimestamp"), "it was held until its run had closed"
    played.admin.patch(where, {"metadata": {"finalizers": None}})


def _patched(played: Played, spec: dict[str, Any]) -> bool:
    found = played.workflow()
    if found is None or (found.get("status") or {}).get("phase") in player.ENDED:
        return False
    played.admin.patch(path("workflows", played.realm.namespace, found["metadata"]["name"]), {"spec": spec})
    return True


def _suspended(played: Played) -> bool:
    played._end_step()
    return _patched(played, {"suspend": True})


def _pod_deleted(played: Played) -> bool:
    one = played.build()
    if not one:
        return False
    played.chaos.brigade.hand.collect(one)
    return True


def _vacuumed(played: Played) -> bool:
    one, run = played.build(), played._run()
    # Vacuum comes days later: by then the record knows of the build.
    if not one or run is None or run.attempt is None or not run.step(run.attempt.epoch, "test").highest:
        return False
    played.chaos.brigade.hand.vacuum(one)
    return True


def _step_killed(played: Played) -> bool:
    if played._step is None or played._step.poll() is not None:
        return False
    played._step.kill()
    return True


def _asked(played: Played) -> bool:
    kind = played.trial.chance.choice([Kind.RETRY, Kind.RERUN, Kind.CANCEL])
    request = f"chaos-{played.trial.number}"
    return act(
        played.realm.runs, played.trial.run, kind, request=request, who="ada", source="cli", now=time.time()
    ).accepted


def _github(of: Callable[[], Callable[[], Reply | None]]) -> Fault:
    def before(played: Played) -> None:
        played.chaos.github.trouble(played.trial.commit, of())

    def after(played: Played) -> None:
        played.trial.fired = played.chaos.github.met[played.trial.commit] > 0

    return Fault(before=before, after=after)


KINDS: dict[str, Fault] = {
    "controller killed": Fault(during=_controller_killed),
    "controller paused past its Lease": Fault(during=_controller_paused),
    "gateway killed": Fault(before=_gateway_killed),
    "API server says 500": _proxied(proxy.says(500, "InternalError"), WRITE, READ),
    "connection reset after the write": _proxied(proxy.reset_after, WRITE),
    "API server is slow": _proxied(proxy.delayed(3.0), WRITE, READ),
    "API server says 409": _proxied(proxy.says(409, "Conflict"), WRITE),
    "watches expire (410)": Fault(during=_expired),
    "workflow deleted": Fault(during=_deleted),
    "workflow terminated": Fault(during=lambda played: _patched(played, {"shutdown": "Terminate"})),
    "workflow suspended": Fault(during=_suspended, needs_build=False),
    "workflow held by a finalizer": Fault(during=_held, after=_released),
    "worker pod deleted": Fault(during=_pod_deleted),
    "build vacuumed": Fault(during=_vacuumed),
    "step process killed": Fault(during=_step_killed),
    "act while it runs": Fault(during=_asked),
    "GitHub says 500 for a while": _github(lambda: until(Reply(500, {"message": "Server Error"}), AWAY_SECONDS)),
    "GitHub says 403 (secondary limit)": _github(
        lambda: times(
            Reply(
                403, {"message": "You have exceeded a secondary rate limit."}, {"Retry-After": f"{LIMIT_SECONDS}"}
            ),
            1,
        )
    ),
    "GitHub says 422 for a while": _github(lambda: times(Reply(422, {"message": "No commit found for SHA"}), 1)),
    "GitHub resets after the write": _github(lambda: times(RESET, 1)),
}
"""By kind. As many runs of each."""


@dataclass
class Count:
    """What the API server and GitHub say of all runs."""

    trials: list[Trial]
    closed: int
    lost: list[str]
    doubled: list[str]

    def lines(self) -> Iterator[str]:
        by_kind: dict[str, list[Trial]] = defaultdict(list)
        for one in self.trials:
            by_kind[one.kind].append(one)
        yield "| fault | runs | fired | final status | closed after, median | max |"
        yield "|---|---|---|---|---|---|"
        for kind in KINDS:
            found = by_kind.get(kind, [])
            if not found:
                continue
            ends = Counter(one.verdict for one in found)
            seconds = [one.seconds for one in found]
            told = ", ".join(f"{verdict} {count}" for verdict, count in ends.most_common())
            fired = sum(one.fired for one in found)
            middle, most = statistics.median(seconds), max(seconds)
            yield f"| {kind} | {len(found)} | {fired} | {told} | {middle:.1f} s | {most:.1f} s |"
        slowest = max(one.seconds for one in self.trials)
        yield (
            f"runs: {len(self.trials)}, closed: {self.closed}, lost: {len(self.lost)}, "
            f"doubled: {len(self.doubled)}, slowest close: {slowest:.0f} s"
        )


def counted(chaos: Chaos, trials: list[Trial]) -> Count:
    """By the audit log of the API server, its objects, and what GitHub holds."""
    realm = chaos.realm
    records = {
        one["metadata"]["name"]: one["metadata"].get("labels") or {}
        for one in chaos.admin.get(path("secrets", realm.namespace))["items"]
    }
    closed = {name for name, labels in records.items() if labels.get("bridge.brigade.sh/phase") == "closed"}
    lost = [f"{one.run}: {one.kind}: no record" for one in trials if one.answered and one.run not in records]
    lost += [f"{one.run}: {one.kind}: not closed" for one in trials if one.run not in closed]
    doubled: list[str] = []
    for namespace, resource in (
        (realm.namespace, "secrets"),
        (realm.namespace, "workflows"),
        (realm.brigade_namespace, "secrets"),
    ):
        made = audited(realm.control_plane, namespace, verb="create", resource=resource)
        stored = Counter(one.name for one in made if one.code == 201)
        doubled += [f"{resource} {name} was created {count} times" for name, count in stored.items() if count > 1]
        if namespace == realm.brigade_namespace:
            doubled += _fired_twice(trials, realm, stored)
    by_commit = defaultdict(list)
    for posted in chaos.github.history:
        by_commit[posted.sha].append(posted.state)
    for one in trials:
        states = by_commit[one.commit]
        if not states or states[-1] not in FINAL:
            lost.append(f"{one.run}: {one.kind}: GitHub shows {states}")
        attempts = len(realm.runs.read(one.run).state.attempts) if one.run in records else 1
        again = sum(1 for before, after in itertools.pairwise(states) if before in FINAL and after == "pending")
        if again > attempts - 1:
            doubled.append(f"{one.run}: {one.kind}: from its end back to pending: {states}")
    return Count(trials, len([one for one in trials if one.run in closed]), lost, doubled)


def _fired_twice(trials: list[Trial], realm: Realm, stored: Counter[str]) -> list[str]:
    """Exit events of one attempt that were built again though the build before was not lost."""
    found = []
    for one in trials:
        for attempt in (1, 2):
            run = realm.runs.read(one.run)
            if run.attempt_numbered(attempt) is None:
                continue
            epoch = run.attempt_numbered(attempt).epoch
            built = [
                number
                for number in range(1, 8)
                if f"brigade-worker-{names.build_id(run=one.run, epoch=epoch, step=names.exit_step(attempt), number=number)}"
                in stored
            ]
            if len(built) > 1:
                found.append(
                    f"{one.run}: {one.kind}: the exit event of attempt {attempt} was fired {len(built)} times"
                )
    return found


def _running(found: dict[str, Any]) -> None:
    name = found["metadata"]["name"]
    both = {"templateScope": "", "startedAt": None, "finishedAt": None, "phase": "Running"}
    root = {"id": name, "name": name, "displayName": name, "type": "DAG", "templateName": "main", **both}
    step = {"id": f"{name}-1", "name": f"{name}.test", "displayName": "test", "type": "Pod", **both}
    step |= {"templateName": "test", "boundaryID": name}
    found["status"] = {
        "phase": "Running",
        "nodes": {name: root, f"{name}-1": step},
        "startedAt": None,
        "finishedAt": None,
    }


def _project(number: int) -> dict[str, Any]:
    name = f"acme/p{number}"
    return {
        "metadata": {
            "name": project_id(name),
            "labels": {"app": "brigade", "component": "project", "heritage": "brigade"},
            "annotations": {"projectName": name},
        },
        "type": "brigade.sh/project",
        "stringData": {
            "sharedSecret": "s",
            "cloneURL": f"https://git.example.com/{name}.git",
            "github.token": f"token-{number}",
        },
    }
