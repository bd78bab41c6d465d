"""The gateway of a cluster: the real app over the real API server, and everything that can go wrong between them."""

import itertools
import json
import threading
import time
import uuid

import pytest

from bridge.clocks import SystemClock
from bridge.cluster.api import SECRETS, WORKFLOW_TEMPLATES
from bridge.cluster.patience import patience
from bridge.cluster.pipelines import ClusterPipelines
from bridge.cluster.projects import WatchedProjects
from bridge.cluster.readiness import Readiness
from bridge.cluster.runs import SecretRuns
from bridge.core.names import project_id
from bridge.core.pipeline_files import parse
from bridge.core.workflows import workflow_template
from bridge.ports import RunFilter
from bridge.sending import signed_headers
from bridge.web.app import create_app
from bridge.web.gateway import Gateway
from tests.cluster import faults as broken
from tests.cluster.accounts import create_account, eventually, grant, token_of
from tests.cluster.apis import api_of
from tests.cluster.client import path
from tests.cluster.faults import DONE, NOT_DONE, Faults
from tests.fakes import FakeBuilds

PATIENCE_SECONDS = 60
BUDGET_SECONDS = 1.5
"""All calls of one delivery: less than in life, as some faults use it up."""
FAULTS = {**NOT_DONE, **DONE}
SECRET, GENERIC = "the-secret", "the-generic-secret"
RECORDS = [
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "create", "patch", "watch"]},
    {"apiGroups": ["argoproj.io"], "resources": ["workflowtemplates"], "verbs": ["get", "list", "watch"]},
]
PROJECTS = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}]


class Place:
    """Namespaces of this module alone, and the account of its gateways."""

    def __init__(self, control_plane, admin):
        self.control_plane = control_plane
        self.records, self.brigade = (f"t-{uuid.uuid4().hex[:10]}" for _ in range(2))
        for name in (self.records, self.brigade):
            admin.create(path("namespaces"), {"metadata": {"name": name}})
        create_account(admin, self.records, "bridge-gateway")
        grant(admin, self.records, self.records, "bridge-gateway", RECORDS)
        grant(admin, self.brigade, self.records, "bridge-gateway", PROJECTS)
        self.access = control_plane.access(token_of(admin, self.records, "bridge-gateway"), self.records)
        self.direct = api_of(control_plane.admin)
        self.runs = SecretRuns(self.direct, self.records)

    def make_project(self, **data):
        """A project of a name of its own."""
        name = f"acme/{uuid.uuid4().hex[:10]}"
        labels = {"app": "brigade", "component": "project", "heritage": "brigade"}
        metadata = {"name": project_id(name), "labels": labels, "annotations": {"projectName": name}}
        given = {"sharedSecret": SECRET, "genericGatewaySecret": GENERIC, **data}
        self.direct.create(SECRETS, self.brigade, {"metadata": metadata, "stringData": given})
        return name

    def make_pipeline(self, project, on="[push, simpleevent, cloudevent]"):
        """A pipeline for this project; its name."""
        name = f"p-{uuid.uuid4().hex[:10]}"
        text = f"projects: {project}\non: {on}\nsteps: [{{name: build}}]\n"
        rendered = workflow_template(parse(text, source="test", default_name=name))
        self.direct.create(WORKFLOW_TEMPLATES, self.records, rendered)
        return name

    def recorded(self, project):
        """The pipelines of the project's records, by name."""
        return sorted(run.pipeline for run in self.runs.list(RunFilter(project=project)))


@pytest.fixture(scope="module")
def place(control_plane, admin):
    one = Place(control_plane, admin)
    yield one
    one.direct.close()
    for name in (one.records, one.brigade):
        admin.delete(path("namespaces", name=name))


class Replica:
    """One gateway behind a proxy of its own."""

    def __init__(self, place, faults, *, hurried=False, **settings):
        self.place = place
        self.faults = faults
        budget = BUDGET_SECONDS if hurried else PATIENCE_SECONDS
        self.api = api_of(faults.of(place.access), timeout_seconds=2 * budget, connect_timeout_seconds=2 * budget)
        self.projects = WatchedProjects(self.api, place.brigade)
        self.pipelines = ClusterPipelines(self.api, place.records)
        watches = [self.projects.cache.watching, self.pipelines.cache.watching]
        gateway = Gateway(
            runs=SecretRuns(self.api, place.records),
            pipelines=self.pipelines,
            projects=self.projects,
            builds=FakeBuilds(),
            clock=SystemClock(),
            loopback_only=False,
            ready=Readiness(self.api, place.records, watches),
            patience=lambda: patience(budget),
            **settings,
        )
        self.app = create_app(gateway)
        self.projects.start()
        self.pipelines.start()
        for watch in watches:
            assert watch.synced.wait(PATIENCE_SECONDS)

    def close(self):
        self.faults.heal()
        self.faults.cut()
        self.projects.stop()
        self.pipelines.stop()
        self.api.close()

    def deliver(self, project, *, delivery="d-1", secret=SECRET, event="push"):
        commit = "c" * 40
        body = {"ref": "refs/heads/main", "after": commit, "head_commit": {"id": commit}, "padding": "x" * 20_000}
        body |= {"repository": {"full_name": project, "clone_url": "https://example.com/x.git"}}
        content = json.dumps(body).encode()
        headers = signed_headers(event, content, secret, delivery)
        began = time.monotonic()
        answer = self.app.test_client().post("/events/github", data=content, headers=headers)
        # By construction it is the budget and a little; this only says that nothing waits for ever.
        assert time.monotonic() - began < 2 * PATIENCE_SECONDS
        return answer

    def deliver_into(self, rule, project, **how):
        """Deliver until the rule met something: on a slow machine the budget may be used up before."""
        answer = self.deliver(project, **how)
        while not rule.used:
            check_refusal(answer)
            answer = self.deliver(project, **how)
        return answer

    def until_it_is_stored(self, project, **how):
        """Deliver again and again, as somebody does who was told to."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (answer := self.deliver(project, **how)).status_code in {429, 503}:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.1)
        return answer


@pytest.fixture
def gateway(place):
    """`gateway(silent=…)` → a Replica; its watches of the named resources tell nothing after the first list."""
    made, stack = [], []

    def start(*, silent=(), **settings):
        faults = Faults(place.control_plane).__enter__()
        stack.append(faults)
        for resource in silent:
            faults.when("watch", resource, then=broken.silent, times=None)
        made.append(Replica(place, faults, **settings))
        return made[-1]

    yield start
    for one in made:
        one.close()
    for faults in stack:
        faults.__exit__(None, None, None)


def check_refusal(answer):
    assert answer.status_code in {429, 503}, answer.text
    assert int(answer.headers["Retry-After"]) > 0


def check(answer, place, project, wanted):
    """2xx only if every record is there; never one twice."""
    recorded = place.recorded(project)
    assert len(recorded) == len(set(recorded))
    assert set(recorded) <= set(wanted)
    if answer.status_code == 202:
        assert recorded == sorted(wanted)
    else:
        check_refusal(answer)


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_happens_to_a_create_no_record_is_promised_that_is_not_there_and_none_is_twice(
    place, gateway, fault
):
    project = place.make_project()
    wanted = [place.make_pipeline(project) for _ in range(2)]
    replica = gateway(hurried=True)
    rule = replica.faults.when("create", "secrets", then=FAULTS[fault], skip=1)
    answer = replica.deliver_into(rule, project)
    check(answer, place, project, wanted)
    again = replica.until_it_is_stored(project)
    assert again.status_code == 202
    check(again, place, project, wanted)
    assert all(run["duplicate"] for run in replica.until_it_is_stored(project).json["runs"])


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_happens_to_the_read_of_a_repeat_it_is_no_new_run(place, gateway, fault):
    project = place.make_project()
    wanted = [place.make_pipeline(project)]
    replica = gateway(hurried=True)
    first = replica.until_it_is_stored(project).json["runs"]
    rule = replica.faults.when("get", "secrets", namespace=place.records, then=FAULTS[fault], times=2)
    answer = replica.deliver_into(rule, project)
    check(answer, place, project, wanted)
    again = replica.until_it_is_stored(project)
    assert [run["id"] for run in again.json["runs"]] == [run["id"] for run in first]
    assert again.json["runs"][0]["duplicate"]
    check(again, place, project, wanted)


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_happens_to_the_fresh_read_a_replaced_secret_is_not_refused(place, gateway, fault):
    project = place.make_project()
    wanted = [place.make_pipeline(project)]
    replica = gateway(silent=["secrets"], hurried=True)
    replaced = {"stringData": {"sharedSecret": "replaced"}}
    place.direct.patch(SECRETS, place.brigade, project_id(project), replaced)
    rule = replica.faults.when("get", "secrets", namespace=place.brigade, then=FAULTS[fault], times=2)
    answer = replica.deliver_into(rule, project, secret="replaced")
    check(answer, place, project, wanted)
    replica.faults.heal()
    again = replica.until_it_is_stored(project, secret="replaced")
    check(again, place, project, wanted)


@pytest.mark.parametrize(("fault", "what"), list(itertools.product(FAULTS, ("pipeline", "project"))))
def test_whatever_happens_to_a_list_what_was_just_made_is_not_called_unwanted_or_unknown(
    place, gateway, fault, what
):
    if what == "pipeline":
        project = place.make_project()
        replica = gateway(silent=["workflowtemplates"], hurried=True)
        wanted = [place.make_pipeline(project)]
    else:
        replica = gateway(silent=["secrets"], hurried=True)
        project = place.make_project()
        wanted = [place.make_pipeline(project)]
        eventually(lambda: wanted[0] in [one.name for one in replica.pipelines.all()], "the pipeline is seen")
    resource = {"pipeline": "workflowtemplates", "project": "secrets"}[what]
    rule = replica.faults.when("list", resource, then=FAULTS[fault], times=2)
    answer = replica.deliver_into(rule, project)
    check(answer, place, project, wanted)
    rule.end()
    again = replica.until_it_is_stored(project)
    check(again, place, project, wanted)


def test_the_usual_delivery_is_one_create_and_nothing_else(place, gateway):
    project = place.make_project()
    place.make_pipeline(project)
    replica = gateway()
    replica.deliver(project, delivery="warm")
    replica.faults.forget()
    assert replica.deliver(project).status_code == 202
    assert [(one.verb, one.resource) for one in replica.faults.asked] == [("create", "secrets")]
    replica.faults.forget()
    client = replica.app.test_client()
    url = f"{project_id(project)}/{GENERIC}"
    assert client.post(f"/simpleevents/v1/{url}", data=b"{}").status_code == 202
    assert client.post(f"/simpleevents/v1/{url}", data=b"{}", headers={"Idempotency-Key": "k"}).status_code == 202
    event = {"type": "t", "specversion": "0.2", "source": "/here", "id": "1", "data": {}}
    assert client.post(f"/cloudevents/v02/{url}", json=event).status_code == 202
    assert [(one.verb, one.resource) for one in replica.faults.asked] == [("create", "secrets")] * 3


def test_what_is_not_ours_costs_one_list_in_a_while_however_often_it_comes(place, gateway):
    project = place.make_project()
    place.make_pipeline(project, on="[release]")
    replica = gateway()
    replica.faults.forget()
    began = time.monotonic()
    for number in range(20):
        assert replica.deliver(project, delivery=f"u-{number}").status_code == 200
        assert replica.deliver(f"stranger/{number}").status_code == 401
        assert replica.deliver(project, secret="wrong").status_code == 401
    seconds = time.monotonic() - began
    assert replica.faults.count("list", "workflowtemplates") <= 1 + seconds / 5
    assert replica.faults.count("list", "secrets") <= 1 + seconds / 5
    # Brigade's Secret and ours.
    assert replica.faults.count("get", "secrets") <= 2 * (1 + seconds)
    assert replica.faults.count("create") == 0


def test_of_deliveries_with_a_replaced_secret_that_come_together_none_is_refused(place, gateway):
    project = place.make_project()
    wanted = [place.make_pipeline(project)]
    replica = gateway(silent=["secrets"])
    replaced = {"stringData": {"sharedSecret": "replaced", "genericGatewaySecret": "replaced"}}
    place.direct.patch(SECRETS, place.brigade, project_id(project), replaced)
    barrier, answers = threading.Barrier(8), []

    def deliver():
        barrier.wait(PATIENCE_SECONDS)
        answers.append(replica.deliver(project, secret="replaced"))

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert [answer.status_code for answer in answers] == [202] * 8
    assert place.recorded(project) == wanted
    url = f"/simpleevents/v1/{project_id(project)}/replaced"
    assert replica.app.test_client().post(url, data=b"{}").status_code == 202


def test_two_replicas_that_get_one_delivery_at_once_make_one_run(place, gateway):
    project = place.make_project()
    wanted = [place.make_pipeline(project) for _ in range(2)]
    replicas = [gateway() for _ in range(2)]
    barrier, answers = threading.Barrier(8), []

    def deliver(replica):
        barrier.wait(PATIENCE_SECONDS)
        answers.append(replica.deliver(project))

    threads = [threading.Thread(target=deliver, args=(replicas[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert [answer.status_code for answer in answers] == [202] * 8
    told = [run["duplicate"] for answer in answers for run in answer.json["runs"]]
    assert told.count(False) == 2
    assert place.recorded(project) == sorted(wanted)


@pytest.mark.parametrize("how", ["refused", "hangs"])
def test_while_the_api_server_is_away_everybody_is_told_to_come_again_and_nobody_is_refused(place, gateway, how):
    project = place.make_project()
    wanted = [place.make_pipeline(project)]
    unwanted = place.make_project()
    replica = gateway(hurried=True)
    client = replica.app.test_client()
    eventually(lambda: client.get("/readyz").status_code == 200, "it is ready")
    away = replica.faults.when(then=broken.hangs, times=None) if how == "hangs" else replica.faults.down()
    with away:
        replica.faults.cut()
        check_refusal(replica.deliver(project))
        check_refusal(replica.deliver(project, secret="wrong"))
        check_refusal(replica.deliver("stranger/here"))
        check_refusal(replica.deliver(unwanted))
        assert client.get("/healthz").status_code == 200
        eventually(lambda: client.get("/readyz").status_code == 503, "it is not ready")
        assert place.recorded(project) == []
    replica.faults.cut()
    assert replica.until_it_is_stored(project).status_code == 202
    assert place.recorded(project) == wanted
    eventually(lambda: client.get("/readyz").status_code == 200, "it is ready again")
    eventually(lambda: replica.deliver("stranger/here").status_code == 401, "strangers are refused again")


def test_a_busy_api_server_is_429_with_its_own_retry_after(place, gateway):
    project = place.make_project()
    place.make_pipeline(project)
    replica = gateway(hurried=True)
    busy = broken.says(429, "TooManyRequests", retry_after=40)
    with replica.faults.when("create", then=busy, times=None) as rule:
        answer = replica.deliver_into(rule, project)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "40")
    assert replica.until_it_is_stored(project).status_code == 202


def test_a_gateway_that_may_not_read_is_not_ready_and_promises_nothing(place, gateway):
    project = place.make_project()
    place.make_pipeline(project)
    replica = gateway()
    with replica.faults.when(then=broken.says(403, "Forbidden"), times=None):
        eventually(lambda: replica.app.test_client().get("/readyz").status_code == 503, "it is not ready")
        check_refusal(replica.deliver(project))
    assert place.recorded(project) == []


def test_it_is_ready_once_everything_was_listed(place):
    with Faults(place.control_plane) as faults:
        hold = faults.when("list", "workflowtemplates", then=broken.hangs, times=None)
        api = api_of(faults.of(place.access))
        projects, pipelines = WatchedProjects(api, place.brigade), ClusterPipelines(api, place.records)
        ready = Readiness(api, place.records, [projects.cache.watching, pipelines.cache.watching])
        try:
            projects.start()
            pipelines.start()
            hold.await_use()
            assert projects.cache.watching.synced.wait(PATIENCE_SECONDS)
            assert "workflowtemplates" in ready()
            hold.end()
            faults.cut()
            eventually(lambda: not ready(), "it is ready")
        finally:
            faults.heal()
            faults.cut()
            projects.stop()
            pipelines.stop()
            api.close()
