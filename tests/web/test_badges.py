"""The badge: one word about a branch, for everybody, and nothing else."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from bridge.core.runs import Phase
from bridge.core.verdicts import Verdict
from bridge.web.badges import KEPT_SECONDS
from tests.fakes import some_event
from tests.web.test_api import a_running
from tests.web.worlds import a_world

PATH = "/badge/acme/widgets/push.svg"
TITLE = "{http://www.w3.org/2000/svg}title"


def shared(**settings):
    return a_world(loopback_only=False, read_tokens=("reads",), **settings)


def add(world, run_id, verdict=None, *, accepted, **event):
    known = {"branch": "main", "project": "acme/widgets", "type": "push", "delivery": run_id}
    run = replace(a_running(run_id, event=some_event(**{**known, **event})), accepted=accepted)
    if verdict is not None:
        run = replace(run, phase=Phase.CLOSED, verdict=verdict, closed=accepted + 1)
    world.runs.add(run)


def word(world, path=PATH, **query):
    answer = world.client.get(path, query_string=query)
    assert answer.status_code == 200, answer.text
    assert answer.content_type == "image/svg+xml; charset=utf-8"
    return ET.fromstring(answer.text).find(TITLE).text  # noqa: S314 - ours


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict.SUCCEEDED, "push: succeeded"),
        (Verdict.FAILED, "push: failed"),
        (Verdict.ERROR, "push: error"),
        (Verdict.TIMED_OUT, "push: timed out"),
        (Verdict.CANCELLED, "push: cancelled"),
        (None, "push: running"),
    ],
)
def test_it_says_how_the_branch_stands_without_identity(verdict, said):
    world = shared()
    add(world, "push-r1", verdict, accepted=10.0)
    assert word(world, branch="main") == said
    assert word(world) == said
    assert word(world, branch="other") == "push: unknown"


def test_it_is_the_newest_verdict_that_tells_of_the_commit():
    world = shared()
    add(world, "push-r1", Verdict.SUCCEEDED, accepted=10.0)
    add(world, "push-r2", Verdict.FAILED, accepted=20.0)
    add(world, "push-r3", Verdict.CANCELLED, accepted=30.0)
    add(world, "push-r4", accepted=40.0)
    assert word(world, branch="main") == "push: failed"


def test_what_a_pull_request_proposes_is_not_how_its_base_branch_stands():
    world = shared()
    add(world, "push-r1", Verdict.SUCCEEDED, accepted=10.0)
    for number in range(150):
        add(world, f"push-p{number}", Verdict.FAILED, accepted=20.0 + number, pull_request=number)
    assert word(world, branch="main") == "push: succeeded"


def test_what_there_is_not_looks_like_what_nothing_ran_of():
    world = shared()
    add(world, "push-r1", Verdict.SUCCEEDED, accepted=10.0)
    paths = [PATH, "/badge/acme/secret/push.svg", "/badge/nobody/nothing/push.svg"]
    answers = {world.client.get(path, query_string={"branch": "none"}).text for path in paths}
    assert len(answers) == 1
    assert word(world, "/badge/acme/widgets/nightly.svg") == "nightly: unknown"


def test_odd_names_are_not_repeated():
    world = shared()
    for name in ("<script>", "a b", "x" * 64, "\ufffe", "%00"):
        assert word(world, f"/badge/acme/widgets/{name}.svg") == "pipeline: unknown"


def test_it_is_kept_for_a_minute_and_asked_for_again_cheaply():
    world = shared()
    add(world, "push-r1", Verdict.SUCCEEDED, accepted=10.0)
    answer = world.client.get(PATH)
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert "Set-Cookie" not in answer.headers
    again = world.client.get(PATH, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    add(world, "push-r2", Verdict.FAILED, accepted=20.0)
    assert word(world) == "push: succeeded"
    world.clock.sleep(KEPT_SECONDS + 1)
    changed = world.client.get(PATH, headers={"If-None-Match": answer.headers["ETag"]})
    assert changed.status_code == 200
    assert word(world) == "push: failed"


def test_a_setting_makes_it_a_matter_of_readers():
    world = shared(badges=False)
    add(world, "push-r1", Verdict.SUCCEEDED, accepted=10.0)
    assert world.client.get(PATH).status_code == 401
    answer = world.client.get(PATH, headers={"Authorization": "Bearer reads"})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "private, max-age=60")
