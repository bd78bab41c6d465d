"""Brigade's builds on a real API server, their Brigade and kubelet played by hand."""

import base64
import threading

import pytest

from bridge.cluster.api import SECRETS
from bridge.cluster.builds import LOOKAHEAD, BrigadeBuilds
from bridge.core.brigade import TAIL_ANNOTATION, TOMBSTONE_ANNOTATION, encode_tombstone
from bridge.core.builds import TAIL_BYTES, BuildPhase, Ending, Outcome, judged
from bridge.core.events import Revision
from bridge.core.names import build_id
from bridge.errors import Conflict, Forbidden, NotFound, Unavailable, UnknownProject
from bridge.flows.settling import settled
from tests.cluster.apis import api_of
from tests.cluster.auditing import audited
from tests.cluster.brigades import EndingPods, HandBrigade, HastyClock, name_of
from tests.cluster.client import path
from tests.cluster.kubelet import Fault
from tests.fakes import FakeClock, FakeProjects, some_event
from tests.local.building import PROJECT, a_spec, seen, until

ONE = build_id(run="r1", epoch=1, step="test", number=1)
PROJECTS = FakeProjects([PROJECT])
AGENT = "brigade-argo-bridge"
RULES = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "create", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "delete"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "delete"]},
]


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def builds(api, namespace):
    return BrigadeBuilds(api, namespace, PROJECTS, clock=HastyClock)


@pytest.fixture
def brigade(admin, kubelet, namespace):
    """Brigade, and a kubelet that lets pods go."""
    brigade = HandBrigade(admin, kubelet, namespace)
    with EndingPods(brigade):
        yield brigade


@pytest.fixture
def dead_node(admin, kubelet, namespace):
    """Brigade, and a node that does not answer: pods that are deleted stay."""
    return HandBrigade(admin, kubelet, namespace)


def created(builds, **changes):
    builds.create(a_spec(ONE, **changes))
    return seen(builds, ONE)


def running(builds, brigade):
    created(builds)
    brigade.start(ONE)
    return seen(builds, ONE)


def test_a_build_has_all_that_brigade_reads(builds, brigade):
    event = some_event(
        type="pull_request:opened",
        revision=Revision("c0ffee", "refs/pull/7/head"),
        payload=b'{"a": "\xff"}',
        clone_url="https://git.example.com/acme/widgets.git",
        short_title="PR #7",
        long_title="PR #7: \ud800 {{workflow.name}}",
    )
    builds.create(a_spec(ONE, event=event, epoch=2, attempt=3, number=4))
    secret = brigade.secret(ONE)
    data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
    assert data == {
        "build_id": name_of(ONE).encode(),
        "build_name": name_of(ONE).encode(),
        "clone_url": b"https://git.example.com/acme/widgets.git",
        "commit_id": b"c0ffee",
        "commit_ref": b"refs/pull/7/head",
        "config": b"",
        "event_provider": b"github",
        "event_type": b"pull_request:opened",
        "log_level": b"log",
        "long_title": b"PR #7: ? {{workflow.name}}",
        "payload": b'{"a": "\xff"}',
        "project_id": PROJECT.id.encode(),
        "script": b"",
        "short_title": b"PR #7",
    }
    assert secret["type"] == "brigade.sh/build"
    assert secret["metadata"]["labels"] == {
        "build": ONE,
        "component": "build",
        "heritage": "brigade",
        "project": PROJECT.id,
        "bridge.brigade.sh/run": "r1",
        "bridge.brigade.sh/pipeline": "push",
        "bridge.brigade.sh/epoch": "2",
        "bridge.brigade.sh/step": "test",
        "bridge.brigade.sh/attempt": "3",
    }


def test_a_build_of_no_project_is_not_created(builds, admin, namespace):
    with pytest.raises(UnknownProject):
        builds.create(a_spec(ONE, event=some_event(project="acme/nowhere")))
    assert admin.get(path("secrets", namespace))["items"] == []


def test_a_payload_is_read_by_nobody_who_only_looks(control_plane, builds, api, namespace):
    created(builds, event=some_event(payload=b"x" * 900_000))
    assert builds.highest("r1", epoch=1, step="test") == 1
    (found,) = next(api.pages(SECRETS, namespace, metadata_only=True)).items
    assert "data" not in found


def test_a_worker_is_seen_from_its_creation_to_its_end(builds, brigade):
    assert created(builds).phase is BuildPhase.WAITING
    brigade.start(ONE, phase="Pending")
    pending = seen(builds, ONE)
    assert pending.phase is BuildPhase.WAITING
    assert pending.started is None
    brigade.set(ONE, "Running")
    assert seen(builds, ONE).phase is BuildPhase.RUNNING
    brigade.end(ONE, 3)
    ended = seen(builds, ONE)
    assert (ended.phase, ended.exit_code) == (BuildPhase.FAILED, 3)


def test_a_source_that_could_not_be_fetched_is_told_by_its_sidecar(admin, builds, brigade):
    created(builds)
    name = name_of(ONE)
    spec = {
        "nodeName": brigade.kubelet.node,
        "initContainers": [{"name": "vcs-sidecar", "image": "none"}],
        "containers": [{"name": "brigade-runner", "image": "none"}],
        "tolerations": [{"operator": "Exists"}],
    }
    labels = brigade.secret(ONE)["metadata"]["labels"]
    admin.create(path("pods", brigade.namespace), {"metadata": {"name": name, "labels": labels}, "spec": spec})
    now = "2026-01-01T00:00:00Z"
    one = {"image": "none", "imageID": "", "ready": False, "restartCount": 0}
    failed = {"terminated": {"exitCode": 1, "reason": "Error", "startedAt": now, "finishedAt": now}}
    waiting = {"waiting": {"reason": "PodInitializing"}}
    status = {
        "phase": "Failed",
        "startTime": now,
        "initContainerStatuses": [{"name": "vcs-sidecar", "state": failed, **one}],
        "containerStatuses": [{"name": "brigade-runner", "state": waiting, **one}],
    }
    admin.patch(path("pods", brigade.namespace, name, "status"), {"status": status})
    brigade.accept(ONE)
    brigade.log(ONE).next(*[Fault(status=400, message="waiting to start: PodInitializing")] * 20)
    sidecar = brigade.kubelet.log(brigade.namespace, name, "vcs-sidecar")
    sidecar.write("checkout: commit c0ffee is not there any more")
    sidecar.end()
    build = seen(builds, ONE)
    assert (build.phase, build.exit_code) == (BuildPhase.FAILED, 1)
    assert builds.log(build) == "checkout: commit c0ffee is not there any more\n"
    text, offset = builds.follow(build, offset=0)
    assert text == b"checkout: commit c0ffee is not there any more\n"
    assert builds.follow(build, offset=offset) == (b"", offset)


def test_a_worker_whose_pod_is_gone_is_lost(builds, brigade):
    running(builds, brigade)
    brigade.collect(ONE)
    build = seen(builds, ONE)
    assert build.phase is BuildPhase.GONE
    assert settled(build, builds, now=5.0).ending is Ending.LOST
    assert TOMBSTONE_ANNOTATION in brigade.secret(ONE)["metadata"]["annotations"]


def test_an_evicted_worker_is_lost(builds, brigade):
    running(builds, brigade)
    brigade.set(ONE, "Failed", exit_code=137, reason="Evicted")
    assert seen(builds, ONE).phase is BuildPhase.GONE


def test_a_pod_without_our_labels_is_not_called_gone(builds, brigade, admin, namespace):
    running(builds, brigade)
    labels = dict.fromkeys(brigade.pod(ONE)["metadata"]["labels"])
    admin.patch(path("pods", namespace, name_of(ONE)), {"metadata": {"labels": labels}})
    assert seen(builds, ONE).phase is BuildPhase.RUNNING


def test_the_pod_of_a_dead_node_is_gone_when_its_observer_has_waited(api, dead_node, namespace):
    clock = FakeClock()
    builds = BrigadeBuilds(api, namespace, PROJECTS, clock=clock)
    running(builds, dead_node)
    dead_node.admin.delete(path("pods", namespace, name_of(ONE)))
    assert seen(builds, ONE).phase is BuildPhase.RUNNING
    clock.advance(89)
    assert seen(builds, ONE).phase is BuildPhase.RUNNING
    clock.advance(2)
    assert seen(builds, ONE).phase is BuildPhase.GONE
    assert settled(seen(builds, ONE), builds, now=5.0).ending is Ending.LOST


def test_steps_of_argo_and_strangers_are_no_builds(builds, brigade, admin, namespace):
    running(builds, brigade)
    labels = {"bridge.brigade.sh/run": "r1", "bridge.brigade.sh/step": "test"}
    brigade.kubelet.create_pod(admin, namespace, "push-r1-test-123", labels=labels)
    admin.create(path("secrets", namespace), {"metadata": {"name": "r1", "labels": labels}})
    assert [build.id for build in builds.find("r1")] == [ONE]


def test_a_build_that_cannot_be_read_is_left_out_and_its_number_stays_used(builds, brigade, admin, namespace):
    created(builds)
    second = build_id(run="r1", epoch=1, step="test", number=2)
    builds.create(a_spec(second, number=2))
    body = {"metadata": {"annotations": {"bridge.brigade.sh/build": "nonsense"}}}
    admin.patch(path("secrets", namespace, name_of(second)), body)
    assert [build.id for build in builds.find("r1")] == [ONE]
    assert builds.highest("r1", epoch=1, step="test") == 2


@pytest.mark.parametrize("left", ["make_job", "make_volume", "start"])
def test_whatever_is_left_of_a_build_keeps_its_number_used(builds, brigade, left):
    number = LOOKAHEAD + 2
    builds.create(a_spec(build_id(run="r1", epoch=1, step="test", number=3), number=3))
    late = build_id(run="r1", epoch=1, step="test", number=number)
    builds.create(a_spec(late, number=number))
    getattr(brigade, left)(late)
    brigade.remove("secrets", name_of(late))
    assert builds.highest("r1", epoch=1, step="test") == number
    with pytest.raises(Conflict, match="created before"):
        builds.create(a_spec(late, number=number))


def test_a_volume_without_labels_keeps_its_id_used(builds, brigade, admin, namespace):
    brigade.make_volume(ONE)
    body = {"metadata": {"labels": {"build": None}}}
    admin.patch(path("persistentvolumeclaims", namespace, name_of(ONE)), body)
    with pytest.raises(Conflict):
        builds.create(a_spec(ONE))


def test_of_two_steps_from_a_barrier_one_creates(control_plane, builds, namespace):
    for number in range(1, 11):
        one = build_id(run="r1", epoch=1, step="test", number=number)
        barrier = threading.Barrier(2)
        conflicts = []

        def create(one=one, number=number, barrier=barrier, conflicts=conflicts):
            barrier.wait(60)
            try:
                builds.create(a_spec(one, number=number))
            except Conflict:
                conflicts.append(1)

        threads = [threading.Thread(target=create) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(conflicts) == 1
    asked = audited(control_plane, namespace, verb="create", resource="secrets")
    assert [request.code for request in asked].count(201) == 10


def test_the_tombstone_stands_before_anything_is_deleted(control_plane, builds, brigade, namespace):
    build = running(builds, brigade)
    brigade.make_job(ONE)
    builds.give_up(build, reason="cancelled by mona", ending=Ending.CANCELLED)
    until(lambda: not brigade.pods(), what="the pods to go")
    secret = brigade.secret(ONE)["metadata"]
    assert secret["labels"]["status"] == "accepted"
    asked = [f"{one.verb} {one.resource}" for one in audited(control_plane, namespace) if one.agent == AGENT]
    written = [one for one in asked if one.partition(" ")[0] in {"create", "patch", "delete"}]
    # Its own, the tail of the log, the worker, the job.
    assert written[:2] == ["create secrets", "patch secrets"]
    assert "delete pods" in written[2:]


def test_a_worker_that_brigade_starts_meanwhile_is_ended_too(api, brigade, namespace):
    clock = FakeClock()
    builds = BrigadeBuilds(api, namespace, PROJECTS, clock=clock)
    build = created(builds)
    late = []

    def start():
        if not late:
            late.append(1)
            brigade.start(ONE)

    clock.on_sleep.append(start)
    builds.give_up(build, reason="cancelled", ending=Ending.CANCELLED)
    assert late
    until(lambda: not brigade.pods(), what="the late worker to go")
    assert seen(builds, ONE).given_up == "cancelled"


def test_of_many_who_give_up_at_once_one_reason_stands_for_all(builds, brigade):
    build = running(builds, brigade)
    barrier = threading.Barrier(6)

    def give_up(who):
        barrier.wait(60)
        builds.give_up(build, reason=f"by {who}", ending=Ending.CANCELLED)

    threads = [threading.Thread(target=give_up, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            # Brigade's controller writes to the Secret as well.
            brigade.accept(ONE)
            thread.join(0.05)
    first = seen(builds, ONE).given_up
    assert first.startswith("by ")
    builds.give_up(build, reason="later", ending=Ending.LOST)
    assert seen(builds, ONE).given_up == first


def test_of_many_who_record_at_once_one_outcome_stands_for_all(builds):
    build = created(builds)
    answers = []
    barrier = threading.Barrier(8)

    def record(who):
        barrier.wait(60)
        answers.append(builds.record(build, Outcome(Ending.FAILED, f"by {who}", 5.0)))

    threads = [threading.Thread(target=record, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 8
    assert set(answers) == {seen(builds, ONE).outcome}


def test_what_was_given_up_by_somebody_who_died_is_ended_before_it_counts(builds, brigade, admin, namespace):
    running(builds, brigade)
    brigade.make_job(ONE)
    body = {"metadata": {"annotations": {TOMBSTONE_ANNOTATION: encode_tombstone("late", Ending.TIMED_OUT)}}}
    admin.patch(path("secrets", namespace, name_of(ONE)), body)
    build = seen(builds, ONE)
    assert build.phase is BuildPhase.RUNNING
    assert settled(build, builds, now=5.0).ending is Ending.TIMED_OUT
    until(lambda: not brigade.pods(), what="the pods to go")


def test_the_end_of_the_log_of_what_was_given_up_is_kept(builds, brigade):
    build = running(builds, brigade)
    brigade.log(ONE).write("x" * TAIL_BYTES, "still going")
    builds.give_up(build, reason="timed out after 5 s", ending=Ending.TIMED_OUT)
    until(lambda: not brigade.pods(), what="the pods to go")
    outcome = settled(seen(builds, ONE), builds, now=5.0)
    assert outcome.tail == "still going\n"
    assert brigade.secret(ONE)["metadata"]["annotations"][TAIL_ANNOTATION] == "still going\n"


def test_a_worker_on_a_dead_node_holds_up_nobody_for_long(api, dead_node, namespace):
    clock = FakeClock()
    builds = BrigadeBuilds(api, namespace, PROJECTS, clock=clock)
    build = running(builds, dead_node)
    dead_node.make_job(ONE)
    builds.give_up(build, reason="cancelled", ending=Ending.CANCELLED)
    assert clock.monotonic() < 60
    for name in (name_of(ONE), f"test-{ONE}"):
        pod = dead_node.admin.get(path("pods", namespace, name))
        assert pod["metadata"]["deletionTimestamp"]
    assert seen(builds, ONE).phase is BuildPhase.GONE


def test_without_its_secret_the_pods_of_a_build_are_ended_all_the_same(builds, brigade):
    build = running(builds, brigade)
    brigade.make_job(ONE)
    brigade.remove("secrets", name_of(ONE))
    builds.give_up(build, reason="cancelled", ending=Ending.CANCELLED)
    until(lambda: not brigade.pods(), what="the pods to go")
    with pytest.raises(NotFound):
        builds.record(build, Outcome(Ending.CANCELLED))


def test_a_log_that_was_cut_behind_the_api_server_is_no_success(builds, brigade):
    """The measured bug of `brig run`: a clean end of the stream is not the end of the log."""
    running(builds, brigade)
    brigade.log(ONE).write("[brigade] brigade-worker version: 1.2.1", "[brigade:app] no-after: fired")
    brigade.end(ONE, 0)
    brigade.log(ONE).next(Fault(after=1, then="close"))
    assert settled(seen(builds, ONE), builds, now=5.0).ending is Ending.UNHANDLED


def test_while_its_log_cannot_be_read_an_ended_worker_has_no_outcome(builds, brigade):
    running(builds, brigade)
    brigade.end(ONE, 0, "done")
    brigade.log(ONE).next(Fault(status=500, message="in trouble"))
    with pytest.raises(Unavailable):
        settled(seen(builds, ONE), builds, now=5.0)
    assert settled(seen(builds, ONE), builds, now=5.0).ending is Ending.SUCCEEDED


def test_a_log_that_the_kubelet_has_lost_is_none(builds, brigade):
    running(builds, brigade)
    brigade.end(ONE, 0, "done")
    lost = Fault(status=400, message="unable to retrieve container logs for containerd://0123")
    brigade.log(ONE).next(lost)
    build = seen(builds, ONE)
    assert builds.log(build) is None
    assert judged(build, log=None, at=1.0).ending is Ending.LOST


def test_a_worker_that_has_not_begun_to_speak_has_an_empty_log(builds, brigade):
    build = running(builds, brigade)
    brigade.log(ONE).next(Fault(status=400, message="container is waiting to start: PodInitializing"))
    assert builds.log(build) == ""


def test_a_log_is_followed_by_one_process_after_the_other(api, builds, brigade, namespace):
    build = running(builds, brigade)
    assert builds.follow(build, offset=0) == (b"", 0)
    brigade.log(ONE).write("one", "two")
    assert builds.follow(build, offset=0) == (b"one\ntwo\n", 8)
    assert builds.follow(build, offset=8) == (b"", 8)
    brigade.log(ONE).write("three")
    another = BrigadeBuilds(api, namespace, PROJECTS, clock=HastyClock)
    assert another.follow(build, offset=5) == (b"wo\nthree\n", 14)
    assert another.follow(build, offset=8) == (b"three\n", 14)
    assert builds.follow(build, offset=8) == (b"three\n", 14)
    assert builds.follow(build, offset=0) == (b"one\ntwo\nthree\n", 14)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(after=2, then="cut")],
        [Fault(after=2, then="cut", torn=True), Fault(after=1, then="close")],
        [Fault(repeat=5), Fault(after=0, then="cut"), Fault(status=500, message="in trouble")],
    ],
    ids=["cut", "torn", "repeated"],
)
def test_what_breaks_while_it_is_followed_loses_and_repeats_nothing(builds, brigade, faults):
    build = running(builds, brigade)
    shown, offset = b"", 0
    for number in range(6):
        brigade.log(ONE).write(f"line {number}", "the same")
        brigade.log(ONE).next(*faults)
        more, offset = builds.follow(build, offset=offset)
        shown += more
    brigade.end(ONE, 1, "the end")
    brigade.log(ONE).next(*faults)
    ended = seen(builds, ONE)
    while True:
        more, offset = builds.follow(ended, offset=offset)
        if not more:
            break
        shown += more
    expected = [line for number in range(6) for line in (f"line {number}", "the same")]
    assert shown.decode().splitlines() == [*expected, "the end"]
    assert offset == len(shown)


def test_forgetting_takes_everything_of_the_run_and_nothing_else(builds, brigade, admin, namespace):
    running(builds, brigade)
    brigade.make_job(ONE)
    brigade.make_volume(ONE)
    cache = {"metadata": {"name": "acme-widgets-test"}, "spec": {"accessModes": ["ReadWriteMany"]}}
    cache["spec"]["resources"] = {"requests": {"storage": "5Mi"}}
    admin.create(path("persistentvolumeclaims", namespace), cache)
    other = build_id(run="r2", epoch=1, step="test", number=1)
    builds.create(a_spec(other, run="r2"))
    brigade.start(other)
    swept = build_id(run="r1", epoch=1, step="test", number=2)
    builds.create(a_spec(swept, number=2))
    brigade.start(swept)
    brigade.remove("secrets", name_of(swept))
    builds.forget("r1")
    until(lambda: brigade.pods() == [name_of(other)], what="the pods to go")

    def names(kind):
        # Who lets go of a volume that is not used any more is a controller that does not run here.
        found = [found["metadata"] for found in admin.get(path(kind, namespace))["items"]]
        return [metadata["name"] for metadata in found if "deletionTimestamp" not in metadata]

    assert names("secrets") == [name_of(other)]
    assert names("persistentvolumeclaims") == ["acme-widgets-test"]


def test_a_step_may_do_this_with_these_rules_alone(as_service_account, brigade, namespace):
    api = api_of(as_service_account("step", RULES))
    builds = BrigadeBuilds(api, namespace, PROJECTS, clock=HastyClock)
    try:
        build = running(builds, brigade)
        brigade.make_job(ONE)
        brigade.make_volume(ONE)
        assert builds.highest("r1", epoch=1, step="test") == 1
        brigade.log(ONE).write("one")
        assert builds.follow(build, offset=0) == (b"one\n", 4)
        builds.give_up(build, reason="cancelled", ending=Ending.CANCELLED)
        assert settled(seen(builds, ONE), builds, now=5.0).ending is Ending.CANCELLED
        builds.forget("r1")
        assert builds.find("r1") == []
    finally:
        api.close()


NEEDED = [
    ("secrets", "list", lambda builds, build: builds.find("r1")),
    ("pods", "list", lambda builds, build: builds.find("r1")),
    ("persistentvolumeclaims", "list", lambda builds, build: builds.highest("r1", epoch=1, step="test")),
    ("persistentvolumeclaims", "get", lambda builds, build: builds.create(a_spec("b9"))),
    ("secrets", "create", lambda builds, build: builds.create(a_spec("b9"))),
    ("secrets", "get", lambda builds, build: builds.record(build, Outcome(Ending.LOST))),
    ("secrets", "patch", lambda builds, build: builds.record(build, Outcome(Ending.LOST))),
    ("pods", "get", lambda builds, build: builds.give_up(build, reason="x", ending=Ending.LOST)),
    ("pods/log", "get", lambda builds, build: builds.log(build)),
    ("pods", "delete", lambda builds, build: builds.forget("r1")),
    ("persistentvolumeclaims", "delete", lambda builds, build: builds.forget("r1")),
    ("secrets", "delete", lambda builds, build: builds.forget("r1")),
]


def test_each_of_the_rules_is_needed(as_service_account, builds, brigade, namespace):
    build = running(builds, brigade)
    for resource, verb, act in NEEDED:
        kept = [
            {**rule, "verbs": [one for one in rule["verbs"] if (rule["resources"][0], one) != (resource, verb)]}
            for rule in RULES
        ]
        account = f"without-{verb}-{resource.replace('/', '-')}"
        api = api_of(as_service_account(account, [rule for rule in kept if rule["verbs"]]))
        try:
            with pytest.raises(Forbidden, match=f"the verb {verb} on {resource}"):
                act(BrigadeBuilds(api, namespace, PROJECTS, clock=HastyClock), build)
        finally:
            api.close()
