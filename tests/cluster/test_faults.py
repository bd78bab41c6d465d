"""The proxy of the tests does what it says, to a real API server."""

import threading

import pytest

from bridge.cluster.api import SECRETS, AlreadyExists, AskLater, Gone
from bridge.errors import Conflict, EngineError, NotFound, Unavailable
from tests.cluster import faults as broken
from tests.cluster.apis import api_of
from tests.cluster.faults import DONE, NOT_DONE, Faults

PATIENCE_SECONDS = 60


@pytest.fixture
def faults(control_plane):
    with Faults(control_plane) as proxy:
        yield proxy


@pytest.fixture
def direct(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def api(control_plane, faults):
    api = api_of(faults.of(control_plane.admin))
    yield api
    api.close()


def secret(name):
    return {"metadata": {"name": name}}


def test_without_a_rule_all_goes_through_and_is_written_down(api, faults, namespace):
    made = api.create(SECRETS, namespace, secret("one"))
    assert api.get(SECRETS, namespace, "one") == made
    assert [page.items[0]["metadata"]["name"] for page in api.pages(SECRETS, namespace)] == ["one"]
    api.delete(SECRETS, namespace, "one")
    with pytest.raises(NotFound):
        api.get(SECRETS, namespace, "one")
    assert [(one.verb, one.resource, one.name, one.status, one.fault) for one in faults.asked] == [
        ("create", "secrets", "", 201, ""),
        ("get", "secrets", "one", 200, ""),
        ("list", "secrets", "", 200, ""),
        ("delete", "secrets", "one", 200, ""),
        ("get", "secrets", "one", 404, ""),
    ]
    assert {one.namespace for one in faults.asked} == {namespace}


@pytest.mark.parametrize("name", [*NOT_DONE, *DONE])
def test_what_is_said_to_be_done_is_done_and_what_is_not_is_not(api, direct, faults, namespace, name):
    faults.when("create", "secrets", then={**NOT_DONE, **DONE}[name])
    try:
        api.within(2.0).create(SECRETS, namespace, secret("one"))
    except EngineError:
        failed = True
    else:
        failed = False
    is_there = bool(next(direct.pages(SECRETS, namespace)).items)
    assert is_there == (name in DONE or not failed)
    assert failed == (name not in {"late", "429"})
    assert faults.count("create", "secrets") == (2 if name == "429" else 1)


def test_a_rule_fits_and_ends(api, faults, namespace):
    rule = faults.when("get", "secrets", name="two", then=broken.says(500), times=2, skip=1)
    answers = []
    for name in ("one", "two", "two", "one", "two", "two"):
        try:
            api.get(SECRETS, namespace, name)
        except NotFound:
            answers.append(404)
        except AskLater:
            answers.append(500)
    assert answers == [404, 404, 500, 404, 500, 404]
    rule.await_use(2)
    with faults.when(then=broken.says(410), times=None), pytest.raises(Gone):
        api.get(SECRETS, namespace, "one")
    with pytest.raises(NotFound):
        api.get(SECRETS, namespace, "one")
    faults.when(then=broken.says(500))
    faults.heal()
    with pytest.raises(NotFound):
        api.get(SECRETS, namespace, "one")


def test_both_kinds_of_409(api, faults, namespace):
    faults.when(then=broken.says(409, "AlreadyExists"))
    with pytest.raises(AlreadyExists):
        api.create(SECRETS, namespace, secret("one"))
    faults.when(then=broken.says(409, "Conflict"))
    with pytest.raises(Conflict):
        api.create(SECRETS, namespace, secret("one"))


def test_while_it_is_down_connections_are_refused_and_afterwards_all_is_well(api, faults, namespace):
    api.create(SECRETS, namespace, secret("one"))
    for _ in range(2):
        with faults.down(), pytest.raises(AskLater, match="refused"):
            api.get(SECRETS, namespace, "one")
        assert api.get(SECRETS, namespace, "one")


def test_a_watch_goes_through_and_can_be_cut_silenced_and_ended(api, direct, faults, namespace):
    version = next(direct.pages(SECRETS, namespace)).resource_version

    def watched():
        with api.watch(SECRETS, namespace, resource_version=version, silence_seconds=0.5) as events:
            return [event["object"]["metadata"]["name"] for event in events]

    direct.create(SECRETS, namespace, secret("one"))
    direct.create(SECRETS, namespace, secret("two"))
    for fault in (broken.cut_after(1), broken.silent):
        faults.when("watch", then=fault)
        with pytest.raises(Unavailable):
            watched()
    faults.when("watch", then=broken.error_event(410))
    with pytest.raises(Gone):
        watched()
    seen = []
    ended = threading.Event()

    def follow():
        with api.watch(SECRETS, namespace, resource_version=version) as events:
            try:
                for event in events:
                    seen.append(event["object"]["metadata"]["name"])
                    two.release()
            except Unavailable:
                ended.set()

    two = threading.Semaphore(0)
    thread = threading.Thread(target=follow)
    thread.start()
    for _ in range(2):
        assert two.acquire(timeout=PATIENCE_SECONDS)
    assert seen == ["one", "two"]
    # One that was given up just now may be there still.
    assert faults.cut("watch") >= 1
    assert ended.wait(PATIENCE_SECONDS)
    thread.join(PATIENCE_SECONDS)
