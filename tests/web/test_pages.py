import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from bridge.core.builds import Ending, Outcome
from bridge.core.runs import Phase, Report
from bridge.core.verdicts import Verdict
from tests.fakes import some_event, some_run
from tests.web.test_api import a_build, a_running
from tests.web.worlds import a_world

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\ud800\x1b[31m\r\n{{ 7*7 }}"


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def a_hostile_world():
    world = a_world()
    event = some_event(
        short_title=HOSTILE,
        long_title=HOSTILE,
        sender=HOSTILE,
        branch=HOSTILE,
        type=HOSTILE,
        delivery=HOSTILE,
        project=HOSTILE,
    )
    run = a_running("push-r1", event=event, reason=HOSTILE, context=HOSTILE)
    report = Report(HOSTILE, "pending", HOSTILE, 1)
    attempt = replace(run.attempt, steps=(HOSTILE,), reason=HOSTILE)
    state = replace(run.state, reported=report, reported_to=HOSTILE, report_error=HOSTILE, attempts=(attempt,))
    world.runs.add(replace(run, state=state))
    a_build(world, log=HOSTILE.replace("\ud800", ""))
    broken = world.builds.break_down(a_build(world, step=HOSTILE))
    world.builds.record(broken, Outcome(Ending.FAILED, HOSTILE, 1.0, tail=HOSTILE))
    return world


@pytest.mark.parametrize("path", ["/", "/runs/push-r1"])
def test_whatever_strangers_wrote_is_shown_as_text(path):
    answer = a_hostile_world().client.get(path)
    assert answer.status_code == 200
    assert "&lt;script&gt;" in answer.text
    assert "{{ 7*7 }}" in answer.text
    assert "\x1b" not in answer.text
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "link",
        "body",
        "header",
        "a",
        "main",
        "h1",
        "h2",
        "h3",
        "p",
        "pre",
    }
    allowed |= {
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "dl",
        "dt",
        "dd",
        "section",
        "ol",
        "li",
        "code",
        "span",
        "time",
        "details",
        "summary",
    }
    for tag, attributes in Tags(answer.text).found:
        assert tag in allowed
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert attributes.get("href", "/").startswith("/")


@pytest.mark.parametrize("path", ["/", "/runs/push-r1", "/runs/none", "/static/bridge.css"])
def test_pages_forbid_every_script_and_every_inline_style(path):
    answer = a_hostile_world().client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    answer.close()


def test_a_run_shows_its_steps_builds_log_tails_and_the_next_command():
    world = a_world()
    world.runs.add(a_running())
    name = a_build(world, log="compiling\n\x1b[31mbroken\x1b[0m\n")
    broken = world.builds.break_down(name, log="")
    world.builds.record(
        broken, Outcome(Ending.FAILED, "the worker exited with code 1", 1.0, tail="\x1b[31mbroken\x1b[0m\n")
    )
    a_build(world, number=2, log="second try\n")
    page = world.client.get("/runs/push-r1").text
    text = re.sub(r"<[^>]+>", " ", page)
    assert "the worker exited with code 1" in text
    assert "second try" in text
    assert "bridgectl cancel push-r1" in text
    assert "test" in text


def test_the_tail_of_a_failed_build_is_shown_without_colours():
    world = a_world()
    world.runs.add(a_running())
    broken = world.builds.break_down(a_build(world))
    world.builds.record(broken, Outcome(Ending.FAILED, "code 1", 1.0, tail="\x1b[31mbroken\x1b[0m\n"))
    assert ">broken</pre>" in world.client.get("/runs/push-r1").text


def test_the_log_of_what_succeeded_is_folded_and_that_of_what_failed_is_not():
    world = a_world()
    world.runs.add(a_running())
    for step, ending in (("build", Ending.SUCCEEDED), ("test", Ending.FAILED)):
        ended = world.builds.break_down(a_build(world, step=step))
        world.builds.record(ended, Outcome(ending, "", 1.0, tail=f"log of {step}"))
    details = [
        attributes for tag, attributes in Tags(world.client.get("/runs/push-r1").text).found if tag == "details"
    ]
    assert details == [{}, {"open": None}]


def test_a_run_is_headed_by_the_whole_title_and_a_list_shows_the_short_one():
    world = a_world()
    world.runs.add(a_running(event=some_event(short_title="PR #7", long_title="PR #7: Widgets turn")))
    assert "<p>PR #7: Widgets turn</p>" in world.client.get("/runs/push-r1").text
    assert world.client.get("/api/v1/runs/push-r1").json["title"] == "PR #7: Widgets turn"
    assert "Widgets turn" not in world.client.get("/").text


def test_a_long_log_is_shown_by_its_last_lines():
    world = a_world()
    world.runs.add(a_running())
    a_build(world, log="".join(f"line {n}\n" for n in range(100)))
    page = world.client.get("/runs/push-r1").text
    assert "line 99" in page
    assert "line 60\n" in page
    assert "line 59\n" not in page


def test_a_page_loads_itself_again_only_while_there_is_something_to_wait_for():
    world = a_world()
    world.runs.add(a_running())
    assert 'http-equiv="refresh"' in world.client.get("/runs/push-r1").text
    ended = replace(a_running("push-r2").attempt, verdict=Verdict.SUCCEEDED, ended=2.0)
    run = some_run("push-r2", phase=Phase.CLOSED, verdict=Verdict.SUCCEEDED, closed=2.0)
    world.runs.add(replace(run, state=replace(run.state, attempts=(ended,))))
    page = world.client.get("/runs/push-r2").text
    assert 'http-equiv="refresh"' not in page
    assert "bridgectl rerun push-r2" in page


def test_the_list_links_to_each_run_and_an_empty_one_says_what_to_do():
    world = a_world()
    assert "/events/github" in world.client.get("/").text
    world.runs.add(some_run())
    assert 'href="/runs/push-r1"' in world.client.get("/").text


def test_a_run_that_there_is_not_is_a_page_that_says_so():
    answer = a_world().client.get("/runs/<b>none")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert "<b>" not in answer.text


def test_the_style_is_there():
    answer = a_world().client.get("/static/bridge.css")
    assert (answer.status_code, answer.mimetype) == (200, "text/css")
    answer.close()
