"""What of the records is a matter of Secrets: their form, what others may do to them, and every fault on the way.

That they are records at all is in tests/contracts.
"""

import itertools
import json
import random
import threading
from dataclasses import replace

import pytest

from bridge.cluster.api import SECRETS
from bridge.cluster.runs import MAX_ANNOTATIONS_BYTES, RUN_FIELDS, RUN_TYPE, SecretRuns, label_value
from bridge.core.events import Revision
from bridge.core.names import project_id
from bridge.core.records import MAX_RECORD_BYTES
from bridge.core.runs import Act, Attempt, Kind, closed, with_act, with_attempt, with_end
from bridge.core.verdicts import Verdict
from bridge.errors import Forbidden, Misconfigured, NotFound, TooLarge, Unavailable
from bridge.ports import RunFilter
from tests.cluster.apis import api_of
from tests.cluster.auditing import audited
from tests.cluster.scripted import answer, scripted
from tests.fakes import some_event, some_run

PREFIX = "bridge.brigade.sh/"
RULES = {"apiGroups": [""], "resources": ["secrets"]}


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def runs(api, namespace):
    return SecretRuns(api, namespace)


def annotate(api, namespace, name, **values):
    annotations = {f"{PREFIX}{key}": value for key, value in values.items()}
    api.patch(SECRETS, namespace, name, {"metadata": {"annotations": annotations}})


def test_a_record_is_an_immutable_secret_that_says_what_lists_need(runs, api, namespace):
    event = some_event(pull_request=7, revision=Revision("c" * 40, "refs/pull/7/head"))
    runs.create(some_run("pr-1", event=event, pipeline="pr", context="bridge/pr/pull_request"), b"{}")
    secret = api.get(SECRETS, namespace, "pr-1")
    assert secret["type"] == RUN_TYPE
    assert secret["immutable"] is True
    assert sorted(secret["data"]) == ["event", "payload", "schema"]
    labels = secret["metadata"]["labels"]
    assert labels.pop(f"{PREFIX}context").isalnum()
    assert labels == {
        f"{PREFIX}run": "pr-1",
        f"{PREFIX}pipeline": "pr",
        f"{PREFIX}project": project_id("acme/widgets"),
        f"{PREFIX}phase": "accepted",
        f"{PREFIX}sha": "c" * 40,
        f"{PREFIX}pull-request": "7",
    }


def test_a_closed_record_says_its_verdict(runs, api, namespace):
    runs.create(some_run("r1"), b"{}")
    runs.change("r1", lambda run: with_attempt(run, Attempt(1, Kind.FIRST, 1, begun=1.0)))
    runs.change("r1", lambda run: with_end(run, 1, verdict=Verdict.FAILED, reason="why", at=2.0))
    runs.change("r1", lambda run: closed(run, at=3.0))
    labels = api.get(SECRETS, namespace, "r1", metadata_only=True)["metadata"]["labels"]
    assert (labels[f"{PREFIX}phase"], labels[f"{PREFIX}verdict"]) == ("closed", "failed")
    runs.change("r1", lambda run: with_act(run, Act(Kind.RETRY, "again", 1)))
    labels = api.get(SECRETS, namespace, "r1", metadata_only=True)["metadata"]["labels"]
    assert labels[f"{PREFIX}phase"] == "running"
    assert f"{PREFIX}verdict" not in labels


def test_lists_and_changes_never_fetch_payloads(runs, control_plane, namespace):
    runs.create(some_run("r1"), b"{}")
    runs.list(RunFilter(open_only=True))
    runs.change("r1", lambda run: replace(run, reason="why"))
    asked = audited(control_plane, namespace, resource="secrets")
    assert [one.verb for one in asked] == ["create", "list", "get", "patch"]
    assert "fieldSelector=type%3Dbridge.brigade.sh%2Frun" in asked[1].uri


def test_of_others_secrets_nothing_is_listed(runs, api, namespace):
    runs.create(some_run("r1"), b"{}")
    labels = {f"{PREFIX}run": "r1", f"{PREFIX}phase": "accepted"}
    api.create(SECRETS, namespace, {"metadata": {"name": "brigade-worker-1", "labels": labels}})
    assert [run.id for run in runs.list(RunFilter())] == ["r1"]
    assert runs.damaged() == []


def test_a_secret_that_has_a_runs_name_and_is_none_is_left_alone(runs, api, namespace):
    api.create(SECRETS, namespace, {"metadata": {"name": "r1"}, "stringData": {"key": "hunter2"}})
    for act in (
        lambda: runs.create(some_run("r1"), b"{}"),
        lambda: runs.read("r1"),
        lambda: runs.payload("r1"),
        lambda: runs.change("r1", lambda run: run),
        lambda: runs.forget("r1"),
    ):
        with pytest.raises(Misconfigured, match=r"the Secret r1 .* is no record of bridge") as caught:
            act()
        assert "hunter2" not in str(caught.value)
    assert api.get(SECRETS, namespace, "r1")


@pytest.mark.parametrize(
    "damage",
    [
        {"state": "{"},
        {"state": '{"schema":3}'},
        {"acts": '{"schema":1,"acts":[{"kind":"dance"}]}'},
        {"accepted": "yesterday"},
        {"accepted": "nan"},
        {"schema": "2"},
        {"event": "[]"},
        {"closed": "late"},
    ],
    ids=str,
)
def test_a_record_that_cannot_be_read_is_set_aside_and_stops_no_list(runs, api, namespace, damage):
    runs.create(some_run("good"), b"{}")
    runs.create(some_run("bad"), b"{}")
    annotate(api, namespace, "bad", **damage)
    assert [run.id for run in runs.list(RunFilter())] == ["good"]
    [(name, why)] = runs.damaged()
    assert name == "bad"
    assert why.startswith("run bad: ")
    before = api.get(SECRETS, namespace, "bad")
    with pytest.raises(Misconfigured):
        runs.change("bad", lambda run: replace(run, reason="why"))
    assert api.get(SECRETS, namespace, "bad") == before


def test_a_record_that_was_mended_or_removed_is_damaged_no_more(runs, api, namespace):
    for name in ("mended", "removed", "forgotten"):
        runs.create(some_run(name), b"{}")
        annotate(api, namespace, name, state="{")
    assert runs.list(RunFilter()) == []
    assert len(runs.damaged()) == 3
    annotate(api, namespace, "mended", state='{"schema":1}')
    api.delete(SECRETS, namespace, "removed")
    runs.forget("forgotten")
    assert [run.id for run in runs.list(RunFilter())] == ["mended"]
    assert runs.damaged() == []


def test_a_record_without_its_annotations_is_damaged_and_can_be_forgotten(runs, api, namespace):
    runs.create(some_run("r1"), b"{}")
    found = api.get(SECRETS, namespace, "r1")["metadata"]
    wiped = dict.fromkeys(found["annotations"]) | {"a": "b"}
    api.patch(SECRETS, namespace, "r1", {"metadata": {"annotations": wiped, "labels": {f"{PREFIX}run": None}}})
    with pytest.raises(Misconfigured, match="run r1: the record is damaged"):
        runs.change("r1", lambda run: run)
    runs.forget("r1")
    with pytest.raises(NotFound):
        runs.read("r1")


def test_a_label_that_is_nonsense_is_damage_too(runs, api, namespace):
    runs.create(some_run("bad"), b"{}")
    api.patch(SECRETS, namespace, "bad", {"metadata": {"labels": {f"{PREFIX}phase": "dancing"}}})
    assert runs.list(RunFilter()) == []
    assert runs.damaged()[0][1].startswith("run bad: the record is damaged: record.phase")


def test_who_changes_the_copy_of_an_event_does_not_change_the_event(runs, api, namespace):
    run = runs.create(some_run("r1"), b"{}").run
    forged = api.get(SECRETS, namespace, "r1")["metadata"]["annotations"][f"{PREFIX}event"].replace("acme", "evil")
    annotate(api, namespace, "r1", event=forged)
    assert runs.read("r1").event == run.event


def test_an_event_that_is_too_long_for_a_copy_is_read_from_the_data(runs, api, namespace):
    event = some_event(long_title="t" * 40_000, payload=b"")
    run = runs.create(some_run("r1", event=event), b"{}").run
    assert f"{PREFIX}event" not in api.get(SECRETS, namespace, "r1")["metadata"]["annotations"]
    assert runs.list(RunFilter()) == [run]
    assert runs.change("r1", lambda run: replace(run, reason="why")).event == event


def test_the_largest_record_and_the_longest_state_fit_together(runs):
    payload = random.Random(1).randbytes(MAX_RECORD_BYTES - 3000)
    runs.create(some_run("r1"), payload)
    acts = tuple(Act(Kind.RETRY, f"{n}-" + "r" * 950, 1) for n in range(200))
    changed = runs.change("r1", lambda run: replace(run, acts=acts))
    assert runs.read("r1") == changed
    assert runs.payload("r1") == payload


def test_a_payload_that_no_secret_can_hold_is_too_large(runs, namespace, control_plane):
    with pytest.raises(TooLarge):
        runs.create(some_run("r1"), random.Random(1).randbytes(MAX_RECORD_BYTES))
    assert audited(control_plane, namespace, resource="secrets") == []


def test_what_annotations_cannot_hold_is_too_large_and_changes_nothing(runs, api, namespace):
    runs.create(some_run("r1"), b"{}")
    before = api.get(SECRETS, namespace, "r1")
    acts = tuple(Act(Kind.RETRY, f"{n}-" + "r" * 1000, 1) for n in range(300))
    with pytest.raises(TooLarge, match="r1: its acts and attempts"):
        runs.change("r1", lambda run: replace(run, acts=acts))
    assert api.get(SECRETS, namespace, "r1") == before


def test_the_copy_of_the_event_makes_room_for_acts(runs, api, namespace):
    event = some_event(long_title="t" * 30_000, payload=b"")
    runs.create(some_run("r1", event=event), b"{}")
    acts = tuple(Act(Kind.RETRY, f"{n}-" + "r" * 1000, 1) for n in range(225))
    size = len(json.dumps([act.request for act in acts]))
    assert size < MAX_ANNOTATIONS_BYTES < size + 45_000
    changed = runs.change("r1", lambda run: replace(run, acts=acts))
    assert f"{PREFIX}event" not in api.get(SECRETS, namespace, "r1")["metadata"]["annotations"]
    assert runs.list(RunFilter()) == [changed]


@pytest.mark.parametrize("text", ["", "v1.2", "a" * 63, "a" * 64, "feature/x", "-x", "é", "\ud800", "x\n"])
def test_any_text_has_a_label_value_of_its_own(text):
    value = label_value(text)
    assert len(value) <= 63
    assert value == text or (value.isalnum() and value.isascii() and value != label_value(text + "?"))


def test_odd_texts_come_back_and_are_found(runs):
    event = some_event(project="acme/wïdgets", revision=Revision("not a sha / é"), payload=b"")
    run = runs.create(some_run("r1", event=event, pipeline="p" * 80, context="b/é"), b"{}").run
    for wanted in (
        RunFilter(project="acme/wïdgets"),
        RunFilter(sha="not a sha / é", context="b/é"),
        RunFilter(pipeline="p" * 80),
    ):
        assert runs.list(wanted) == [run]
    assert runs.list(RunFilter(pipeline="p" * 81)) == []


def test_a_list_goes_over_all_pages(runs):
    def create(worker):
        for n in range(65):
            runs.create(some_run(f"r{worker}-{n}", accepted=float(worker * 100 + n)), b"{}")

    threads = [threading.Thread(target=create, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(runs.list(RunFilter())) == 520
    assert [run.id for run in runs.list(RunFilter(limit=2))] == ["r7-64", "r7-63"]


def test_who_may_not_create_is_forbidden(as_service_account, namespace):
    runs = SecretRuns(api_of(as_service_account("reader", [{**RULES, "verbs": ["get"]}])), namespace)
    with pytest.raises(Forbidden, match=r"create secrets r1 .* give this account the verb create on secrets"):
        runs.create(some_run("r1"), b"{}")


def test_the_verbs_that_records_need(as_service_account, namespace):
    """docs and chart name these; each method needs no more."""
    verbs = ["create", "get", "list", "patch", "delete"]
    runs = SecretRuns(api_of(as_service_account("all", [{**RULES, "verbs": verbs}])), namespace)
    runs.create(some_run("r1"), b"{}")
    runs.create(some_run("r1"), b"{}")
    runs.payload("r1")
    runs.change("r1", lambda run: replace(run, reason="why"))
    runs.list(RunFilter())
    runs.forget("r1")
    with pytest.raises(NotFound):
        runs.read("r1")


def test_without_its_namespace_nothing_is_stored_and_the_sender_asks_again(api):
    with pytest.raises(Unavailable, match="there is no namespace nowhere"):
        SecretRuns(api, "nowhere").create(some_run("r1"), b"{}")


def test_a_create_whose_answer_was_lost_is_unavailable_and_its_repeat_a_duplicate(runs, api, namespace):
    with scripted() as server:
        # The write is done, and its answer is lost on the way.
        def done_and_cut(_client):
            runs.create(some_run("r1"), b"{}")

        server.will(done_and_cut)
        with pytest.raises(Unavailable):
            SecretRuns(server.api(), namespace).create(some_run("r1"), b"{}")
        assert len(server.asked) == 1
    assert runs.create(some_run("r1"), b"{}").duplicate


@pytest.mark.parametrize("code", [500, 503, 504, 409])
def test_what_is_not_known_to_be_stored_is_unavailable(code):
    with scripted() as server:
        server.will(answer(code, {"reason": "Conflict"}))
        with pytest.raises(Unavailable):
            SecretRuns(server.api(), "ns").create(some_run("r1"), b"{}")


def test_a_record_that_went_between_create_and_read_is_unavailable():
    with scripted() as server:
        server.will(answer(409, {"reason": "AlreadyExists"}), answer(404))
        with pytest.raises(Unavailable):
            SecretRuns(server.api(), "ns").create(some_run("r1"), b"{}")


def test_a_list_whose_pages_took_too_long_begins_again():
    with scripted() as server:
        page = answer(200, {"metadata": {"resourceVersion": "5", "continue": "more"}, "items": []})
        last = answer(200, {"metadata": {"resourceVersion": "6"}, "items": []})
        server.will(page, answer(410), page, last)
        assert SecretRuns(server.api(), "ns").list(RunFilter()) == []
        assert len(server.asked) == 4


def test_a_record_that_others_always_change_first_is_given_up(api, namespace):
    runs = SecretRuns(api, namespace, change_tries=4)
    runs.create(some_run("r1"), b"{}")
    numbers = itertools.count()

    def beaten(run):
        annotate(api, namespace, "r1", other=str(next(numbers)))
        return replace(run, reason="mine")

    with pytest.raises(Unavailable, match="changed by others 4 times"):
        runs.change("r1", beaten)
    assert runs.read("r1").reason == ""


def test_what_others_wrote_meanwhile_is_kept(runs, api, namespace):
    runs.create(some_run("r1"), b"{}")
    first = [True]

    def late(run):
        if first.pop() if first else False:
            annotate(api, namespace, "r1", other="theirs")
            runs.change("r1", lambda run: with_act(run, Act(Kind.CANCEL, "c", 1)))
        return replace(run, reason="mine")

    changed = runs.change("r1", late)
    assert [act.request for act in changed.acts] == ["c"]
    assert api.get(SECRETS, namespace, "r1")["metadata"]["annotations"][f"{PREFIX}other"] == "theirs"


def test_a_record_that_a_watch_brings_is_a_run(runs, api, namespace):
    run = runs.create(some_run("r1"), b"{}").run
    with api.watch(SECRETS, namespace, resource_version="0", fields=RUN_FIELDS, metadata_only=True) as events:
        found = next(iter(events))["object"]
    assert runs.run_of(found) == run
    annotate(api, namespace, "r1", state="{")
    assert runs.run_of(api.get(SECRETS, namespace, "r1", metadata_only=True)) is None
    assert runs.damaged()[0][0] == "r1"


def test_no_name_reaches_outside_the_records(runs, api, namespace):
    runs.create(some_run("r1"), b"{}")
    for name in ("../pods/p", "..", "r1/status", ""):
        with pytest.raises(NotFound):
            runs.read(name)
        runs.forget(name)
    assert [run.id for run in runs.list(RunFilter())] == ["r1"]
