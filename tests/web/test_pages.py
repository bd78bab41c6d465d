import re
from dataclasses import replace
from itertools import pairwise

import pytest

from bridge.core.builds import Ending, Outcome
from bridge.core.events import Revision
from bridge.core.pipelines import Step
from bridge.core.runs import Act, Attempt, Kind, Phase, Report
from bridge.core.verdicts import Verdict
from bridge.errors import Unavailable
from tests.fakes import some_event, some_run
from tests.web.dom import parsed
from tests.web.test_api import a_build, a_running
from tests.web.worlds import PROJECT, a_pipeline, a_world

HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> javascript:alert(1) `x`"
    "\ud800\x1b[31m\r\n\u202egnp.exe\u2066 {{ 7*7 }}"
)
SAFE_TAGS = """
    html head meta title link script body header nav main footer h1 h2 h3 p a span bdi code pre ul ol li dl dt dd div
    section table caption thead tbody tr th td time details summary form button input label select option datalist
    figure figcaption svg path rect g text tspan img noscript wbr
"""


def page_at(world, path, status=200, **options):
    answer = world.client.get(path, **options)
    assert answer.status_code == status, answer.text
    return parsed(answer.text)


def a_hostile_world():
    world = a_world(a_pipeline("push", steps=(Step(HOSTILE), Step("<b>", needs=(HOSTILE,)))))
    event = some_event(
        short_title=HOSTILE,
        long_title=HOSTILE,
        sender=HOSTILE,
        branch=HOSTILE,
        type=HOSTILE,
        delivery=HOSTILE,
        project=HOSTILE,
        revision=Revision(HOSTILE, HOSTILE),
    )
    run = a_running("push-r1", event=event, reason=HOSTILE, context=HOSTILE)
    report = Report(HOSTILE, "pending", HOSTILE, 1)
    attempt = replace(run.attempt, steps=(HOSTILE, "<b>"), reason=HOSTILE)
    state = replace(run.state, reported=report, reported_to=HOSTILE, report_error=HOSTILE, attempts=(attempt,))
    act = Act(Kind.RETRY, HOSTILE, 0, who=HOSTILE, source=HOSTILE, only=(HOSTILE,))
    world.runs.add(replace(run, state=state, acts=(act,)))
    a_build(world, log=HOSTILE.replace("\ud800", ""))
    broken = world.builds.break_down(a_build(world, step=HOSTILE))
    world.builds.record(broken, Outcome(Ending.FAILED, HOSTILE, 1.0, tail=HOSTILE))
    return world


HOSTILE_PATHS = [
    "/",
    "/live",
    "/runs/push-r1",
    "/runs/push-r1/live",
    "/runs/push-r1/steps/build/log",
    "/runs/push-r1/steps/build/log/more",
    "/projects",
    "/projects/%3Cscript%3Ealert(1)%3C/script%3E\"'%3E",
    "/?search=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&branch=%22onfocus=x",
    "/?verdict=%3Cscript%3E",
    "/runs/%3Cscript%3E",
    "/signin?next=javascript:alert(1)",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_whatever_strangers_wrote_is_shown_as_text(path):
    answer = a_hostile_world().client.get(path)
    assert answer.status_code in {200, 400, 404}
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", answer.text)
    for element in parsed(answer.text).all():
        assert element.tag in SAFE_TAGS.split()
        assert not [name for name in element.attributes if name.startswith(("on", "hx-on")) or name == "style"]
        for name in ("href", "src", "action", "hx-get", "hx-post", "formaction", "xlink:href"):
            assert element.get(name, "/").startswith(("/", "#")), element
            assert not element.get(name, "/").startswith("//")
        if element.tag == "script":
            assert element.text == ""


def test_the_text_itself_is_there():
    page = page_at(a_hostile_world(), "/runs/push-r1")
    title = page.one("h1").words
    assert title.startswith("<script>alert(1)</script>\"'><img src=x onerror=alert(1)>")
    assert "{{ 7*7 }}" in title
    assert "�gnp.exe�" in title


@pytest.mark.parametrize(
    "path", ["/", "/runs/push-r1", "/runs/none", "/static/bridge.css", "/signin", "/projects"]
)
def test_pages_load_nothing_from_elsewhere_and_run_no_script_that_stands_in_them(path):
    answer = a_hostile_world().client.get(path)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    answer.close()


EVERY_PAGE = [
    "/",
    "/projects",
    f"/projects/{PROJECT}",
    "/runs/push-r1",
    "/runs/push-r1/steps/build/log",
    "/runs/none",
]


@pytest.mark.parametrize("path", EVERY_PAGE)
def test_a_page_can_be_used_with_a_keyboard_and_a_screen_reader(path):
    world = a_world()
    world.runs.add(a_running())
    a_build(world, log="one\n")
    page = parsed(world.client.get(path).text)
    assert page.one("html")["lang"] == "en"
    assert page.one("head").one("title").words
    (first, *_) = page.one("body").all("a")
    assert "skip" in first.classes
    assert page.one(id=first["href"].removeprefix("#")).tag == "main"
    assert page.all("header")
    assert page.all("footer")
    assert all(nav.get("aria-label") for nav in page.all("nav"))
    levels = [int(one.tag[1]) for one in page.all() if re.fullmatch(r"h\d", one.tag)]
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))
    ids = [one["id"] for one in page.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    for table in page.all("table"):
        assert table.one("caption").words
        assert all(head.get("scope") in {"col", "row"} for head in table.all("th"))
    labelled = {label["for"] for label in page.all("label")}
    for control in [*page.all("input"), *page.all("select")]:
        assert control.get("type") == "hidden" or control["id"] in labelled
    for button in page.all("button"):
        assert button.words
    for picture in page.all("svg"):
        assert picture["aria-hidden"] == "true"
    for picture in page.all("img"):
        assert picture["alt"]
    for scrolled in page.all("pre"):
        assert scrolled["tabindex"] == "0"


def test_a_run_shows_its_steps_builds_log_tails_and_the_next_command():
    world = a_world()
    world.runs.add(a_running())
    name = a_build(world, log="compiling\n\x1b[31mbroken\x1b[0m\n")
    broken = world.builds.break_down(name, log="")
    world.builds.record(broken, Outcome(Ending.FAILED, "the worker exited with code 1", 1.0, tail="broken\n"))
    a_build(world, number=2, log="second try\n")
    page = page_at(world, "/runs/push-r1")
    build, test = page.all("li", cls="step")
    assert build.one("h3").words == "build"
    assert "the worker exited with code 1" in build.words
    assert "Build 1" in build.words
    assert "Build 2" in build.words
    assert "second try" in build.one("pre").text
    assert "pending" in test.words
    assert "bridgectl cancel push-r1" in page.one("pre", cls="next").text
    assert "accepted" in page.one("ol", cls="timeline").words


def test_the_tail_of_a_failed_build_is_shown_without_colours():
    world = a_world()
    world.runs.add(a_running())
    broken = world.builds.break_down(a_build(world))
    world.builds.record(broken, Outcome(Ending.FAILED, "code 1", 1.0, tail="\x1b[31mbroken\x1b[0m\n"))
    assert page_at(world, "/runs/push-r1").one("pre", cls="log").text == "broken"


def test_the_log_of_what_succeeded_is_folded_and_that_of_what_failed_is_not():
    world = a_world()
    world.runs.add(a_running())
    for step, ending in (("build", Ending.SUCCEEDED), ("test", Ending.FAILED)):
        ended = world.builds.break_down(a_build(world, step=step))
        world.builds.record(ended, Outcome(ending, "", 1.0, tail=f"log of {step}"))
    panes = page_at(world, "/runs/push-r1").all("details", cls="log-pane")
    assert ["open" in pane.attributes for pane in panes] == [False, True]


def test_a_run_and_its_line_in_a_list_have_the_whole_title_by_which_it_is_found():
    world = a_world()
    world.runs.add(a_running(event=some_event(short_title="PR #7", long_title="PR #7: Widgets turn")))
    assert page_at(world, "/runs/push-r1").one("h1").words == "PR #7: Widgets turn"
    assert world.client.get("/api/v1/runs/push-r1").json["title"] == "PR #7: Widgets turn"
    for path in ("/", "/?search=widgets+TURN"):
        assert page_at(world, path).one("a", href="/runs/push-r1").words == "PR #7: Widgets turn"


def test_a_long_log_is_shown_by_its_last_lines():
    world = a_world()
    world.runs.add(a_running())
    a_build(world, log="".join(f"line {n}\n" for n in range(100)))
    shown = page_at(world, "/runs/push-r1").one("pre", cls="log").text.splitlines()
    assert shown == [f"line {n}" for n in range(60, 100)]


def a_closed(run_id="push-r2", verdict=Verdict.SUCCEEDED, **changes):
    ended = replace(a_running(run_id).attempt, verdict=verdict, ended=1_700_000_060.0)
    run = some_run(run_id, phase=Phase.CLOSED, verdict=verdict, closed=1_700_000_061.0, **changes)
    return replace(run, state=replace(run.state, attempts=(ended,)))


def test_a_page_stays_up_to_date_only_while_there_is_something_to_wait_for():
    world = a_world()
    world.runs.add(a_running())
    page = page_at(world, "/runs/push-r1")
    assert page.one(id="run")["hx-trigger"].startswith("every ")
    assert page.one("noscript").one("meta")["http-equiv"] == "refresh"
    world.runs.add(a_closed())
    page = page_at(world, "/runs/push-r2")
    assert "hx-trigger" not in page.one(id="run").attributes
    assert page.all("noscript") == []
    assert "bridgectl rerun push-r2" in page.one("pre", cls="next").text


def test_a_page_that_asks_again_is_told_nothing_until_something_changed():
    world = a_world()
    world.runs.add(a_running())
    again = page_at(world, "/runs/push-r1").one(id="run")["hx-get"]
    assert world.client.get(again).status_code == 204
    world.clock.advance(60)
    assert world.client.get(again).status_code == 204
    a_build(world, log="one\n")
    piece = page_at(world, again)
    assert piece.one(id="announce")["hx-swap-oob"] == "innerHTML"
    fresh = piece.one(id="run")["hx-get"]
    assert fresh != again
    assert world.client.get(fresh).status_code == 204


def test_a_page_of_a_run_that_closed_meanwhile_does_not_ask_again():
    world = a_world()
    world.runs.add(a_running())
    again = page_at(world, "/runs/push-r1").one(id="run")["hx-get"]
    world.runs.change("push-r1", lambda run: replace(a_closed("push-r1"), version=run.version))
    piece = page_at(world, again)
    assert "hx-trigger" not in piece.one(id="run").attributes
    assert "succeeded" in piece.one(id="announce").words


def test_the_picture_shows_which_step_needs_which_and_the_list_says_the_same():
    steps = (Step("build"), Step("test", needs=("build",)), Step("lint", needs=("build",)))
    world = a_world(a_pipeline(steps=steps))
    run = a_running()
    attempt = replace(run.attempt, steps=("build", "test", "lint"))
    world.runs.add(replace(run, state=replace(run.state, attempts=(attempt,))))
    page = page_at(world, "/runs/push-r1")
    picture = page.one("div", cls="graph").one("svg")
    assert len(picture.all("path", cls="edge")) == 2
    for box in picture.all("a", cls="box"):
        step = page.one(id=box["href"].removeprefix("#"))
        assert step.one("h3").words == box.one("text", cls="name").words
        assert box["tabindex"] == "-1"
    assert "after build" in page.all("li", cls="step")[1].words


def test_without_the_pipeline_the_steps_stand_in_a_row():
    world = a_world()
    world.pipelines.pipelines.clear()
    world.runs.add(a_running())
    page = page_at(world, "/runs/push-r1")
    assert page.all("path", cls="edge") == []
    assert len(page.all("a", cls="box")) == 2
    assert "which step needs which is not known" in page.words


def test_a_run_that_has_not_begun_shows_what_will_be_done():
    world = a_world(a_pipeline(steps=(Step("build"), Step("test", needs=("build",)))))
    world.runs.add(some_run())
    page = page_at(world, "/runs/push-r1")
    assert [one.words for one in page.all("h3")] == ["build", "test"]
    assert len(page.all("path", cls="edge")) == 1


def test_a_page_is_there_when_a_log_cannot_be_read():
    world = a_world()
    world.runs.add(a_running())
    a_build(world, log="one\n")
    world.builds.fail("log", "before", Unavailable("the node is away"))
    assert page_at(world, "/runs/push-r1").one("h1")


def buttons(page):
    return {
        form["action"]: form for form in page.all("form", method="post") if form["action"].startswith("/runs/")
    }


def test_the_buttons_of_a_run_are_those_that_can_do_something():
    world = a_world()
    world.runs.add(a_running())
    assert set(buttons(page_at(world, "/runs/push-r1"))) == {"/runs/push-r1/cancel"}
    world.runs.add(a_closed("push-r2"))
    assert set(buttons(page_at(world, "/runs/push-r2"))) == {"/runs/push-r2/rerun"}
    world.runs.add(a_closed("push-r3", Verdict.FAILED))
    broken = world.builds.break_down(a_build(world, run="push-r3"))
    world.builds.record(broken, Outcome(Ending.FAILED, "code 1", 1.0))
    assert set(buttons(page_at(world, "/runs/push-r3"))) == {
        "/runs/push-r3/retry",
        "/runs/push-r3/rerun",
        "/runs/push-r3/steps/build/retry",
    }
    held = some_run("push-r4", phase=Phase.CLOSED, verdict=Verdict.CANCELLED, reason="by a stranger", closed=3.0)
    world.runs.add(replace(held, state=replace(held.state, held="by a stranger")))
    page = page_at(world, "/runs/push-r4")
    assert set(buttons(page)) == {"/runs/push-r4/approve"}
    assert page.all("span", cls="held")


def test_a_button_names_the_attempt_that_it_follows_and_is_sealed_and_counts_once():
    world = a_world()
    world.runs.add(a_closed(verdict=Verdict.FAILED))
    form = buttons(page_at(world, "/runs/push-r2"))["/runs/push-r2/retry"]
    sent = {one["name"]: one["value"] for one in form.all("input")}
    assert sent["follows"] == "1"
    assert sent["csrf"]
    for _ in range(2):
        assert world.client.post("/runs/push-r2/retry", data=sent).status_code == 303
    assert [act.kind for act in world.runs.read("push-r2").acts] == [Kind.RETRY]
    told = page_at(world, "/runs/push-r2").one("p", cls="told")
    assert "asked for already" in told.words
    assert told["role"] == "status"


def test_who_may_only_read_sees_no_buttons():
    world = a_world(act_tokens=("secret",))
    world.runs.add(a_closed(verdict=Verdict.FAILED))
    assert buttons(page_at(world, "/runs/push-r2")) == {}


def test_the_list_links_to_each_run_and_an_empty_one_says_what_to_do():
    world = a_world()
    assert "/events/github" in page_at(world, "/").words
    world.runs.add(some_run())
    assert page_at(world, "/").one("a", href="/runs/push-r1").words == "push main"


def listed(page):
    return [
        link["href"].removeprefix("/runs/") for link in page.all("a") if link.get("href", "").startswith("/runs/")
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["r5", "r4", "r3", "r2", "r1"]),
        ("?project=acme/gadgets", ["r2"]),
        ("?pipeline=release&search=", ["r3"]),
        ("?branch=dev", ["r4"]),
        ("?pull_request=%237", ["r5"]),
        ("?verdict=failed", ["r3"]),
        ("?verdict=open", ["r5", "r4", "r2", "r1"]),
        ("?search=turn%20WIDGETS", ["r5"]),
        ("?sha=ddddddd", ["r1"]),
        ("?branch=none", []),
        ("?unknown=x", ["r5", "r4", "r3", "r2", "r1"]),
    ],
)
def test_a_list_shows_what_its_address_asks_for_and_the_form_says_so_too(query, expected):
    world = a_world()
    world.runs.add(some_run("r1", accepted=1.0, event=some_event(revision=Revision("d" * 40))))
    world.runs.add(some_run("r2", accepted=2.0, event=some_event(project="acme/gadgets")))
    world.runs.add(
        some_run("r3", accepted=3.0, pipeline="release", phase=Phase.CLOSED, verdict=Verdict.FAILED, closed=4.0)
    )
    world.runs.add(some_run("r4", accepted=4.0, event=some_event(branch="dev")))
    world.runs.add(
        some_run("r5", accepted=5.0, event=some_event(pull_request=7, short_title="PR #7: Widgets turn"))
    )
    page = page_at(world, f"/{query}")
    assert listed(page) == expected
    assert f"{len(expected)} run" in page.one(id="count").words
    form = page.one("form", role="search")
    given = {one["name"]: one.get("value", "") for one in form.all("input")}
    given["verdict"] = next((one["value"] for one in form.all("option") if "selected" in one.attributes), "")
    asked = {name: value for name, value in given.items() if value}
    assert asked == {
        name: value.replace("%20", " ").replace("%23", "")
        for name, _, value in (part.partition("=") for part in query.removeprefix("?").split("&"))
        if value and name != "unknown"
    }
    live = page.one(id="list")["hx-get"]
    assert world.client.get(live).status_code == 204


@pytest.mark.parametrize("query", ["verdict=broken", "pull_request=x7", f"search={'x' * 301}"])
def test_a_list_that_cannot_be_asked_for_says_what_to_write(query):
    page = page_at(a_world(), f"/?{query}", 400)
    assert query.partition("=")[0] in page.one("main").words


def test_many_runs_are_shown_in_pages_of_fifty():
    world = a_world()
    for n in range(120):
        world.runs.add(some_run(f"r{n:03}", accepted=float(n)))
    seen, path = [], "/?project=acme/widgets"
    while path:
        page = page_at(world, path)
        found = listed(page)
        assert len(found) <= 50
        seen += found
        older = page.all("a", rel="next")
        path = older[0]["href"] if older else ""
        assert not path or "project=acme" in path
    assert seen == [f"r{n:03}" for n in reversed(range(120))]
    assert "hx-get" not in page.one(id="list").attributes
    assert page.one("a", cls="button", href="/?project=acme%2Fwidgets").words == "Newest"


def test_an_older_page_whose_beginning_was_swept_away_is_the_first_page():
    answer = a_world().client.get("/?after=gone&branch=main")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/?branch=main")


def test_a_list_comes_to_know_of_a_new_run():
    world = a_world()
    world.runs.add(some_run("r1", accepted=1.0))
    again = page_at(world, "/?branch=main").one(id="list")["hx-get"]
    assert world.client.get(again).status_code == 204
    world.runs.add(some_run("r2", accepted=2.0, event=some_event(branch="other")))
    assert world.client.get(again).status_code == 204
    world.runs.add(some_run("r3", accepted=3.0))
    piece = page_at(world, again)
    assert listed(piece) == ["r3", "r1"]
    assert piece.one(id="count")["hx-swap-oob"] == "innerHTML"


def test_a_list_is_there_without_suggestions():
    world = a_world()
    world.projects.fail("all", "before", Unavailable("the API server is away"))
    assert page_at(world, "/").one("h1").words == "Runs"


def test_a_run_that_there_is_not_is_a_page_that_says_so():
    answer = a_world().client.get("/runs/<b>none")
    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    page = parsed(answer.text)
    assert page.one("h1").words == "Not Found"
    assert "<b>none" in page.one("main").words


@pytest.mark.parametrize(("name", "kind"), [("bridge.css", "text/css"), ("htmx.min.js", "text/javascript")])
def test_files_of_pages_are_kept_for_ever_under_a_name_of_their_content(name, kind):
    client = a_world().client
    page = parsed(client.get("/").text)
    (url,) = [
        one.get("href") or one.get("src")
        for one in page.all()
        if name in (one.get("href") or one.get("src") or "")
    ]
    with client.get(url) as answer:
        assert (answer.status_code, answer.mimetype) == (200, kind)
        assert "immutable" in answer.headers["Cache-Control"]
    for other in (f"/static/{name}", f"/static/{name}?v=0000"):
        with client.get(other) as answer:
            assert answer.headers["Cache-Control"] == "no-cache"
            with client.get(other, headers={"If-None-Match": answer.headers["ETag"]}) as again:
                assert again.status_code == 304


def test_a_theme_is_what_somebody_chose_until_they_choose_none():
    world = a_world()
    assert "data-theme" not in page_at(world, "/").one("html").attributes
    answer = world.client.post("/theme", data={"theme": "dark", "next": "/projects"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/projects")
    page = page_at(world, "/signin")
    assert page.one("html")["data-theme"] == "dark"
    assert [one.words for one in page.all("button", aria_pressed="true")] == ["dark"]
    world.client.post("/theme", data={"theme": "<script>", "next": "https://example.com"})
    assert "data-theme" not in page_at(world, "/").one("html").attributes


def test_a_run_with_several_attempts_has_a_table_of_them():
    world = a_world()
    run = a_closed(verdict=Verdict.FAILED)
    second = Attempt(n=2, kind=Kind.RETRY, epoch=1, begun=1_700_000_100.0, steps=("build", "test"), only=("test",))
    world.runs.add(replace(run, phase=Phase.RUNNING, state=replace(run.state, attempts=(run.attempt, second))))
    rows = page_at(world, "/runs/push-r2").one("table", cls="attempts").one("tbody").all("tr")
    assert [row.one("th").words for row in rows] == ["1", "2"]
    assert "retry of test" in rows[1].words


def test_the_time_between_two_attempts_is_nobodys():
    """Of a run that was retried on the next day, the pages would say that it took a day."""
    world = a_world()
    world.runs.add(a_closed("push-r1", Verdict.FAILED))
    tried_at = {}
    for number in (1, 2):
        build = world.builds.break_down(a_build(world, number=number, attempt=number))
        tried_at[number] = world.clock.now()
        world.builds.record(build, Outcome(Ending.FAILED, "", tried_at[number] + 12.0))
        world.clock.advance(86_400)
    run = world.runs.read("push-r1")
    second = replace(run.attempt, n=2, kind=Kind.RETRY, begun=tried_at[2] - 5.0, ended=tried_at[2] + 12.0)
    retried = replace(run.state, attempts=(run.attempt, second))
    world.runs.change("push-r1", lambda one: replace(one, state=retried, closed=tried_at[2] + 20.0))
    page = page_at(world, "/runs/push-r1")
    assert "12 s" in page.all("li", cls="step")[0].words
    assert "Took25 s" in [one.words for one in page.all("div")]
    assert page_at(world, "/").one("td", cls="took").words == "25 s"
