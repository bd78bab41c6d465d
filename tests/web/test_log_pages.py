from dataclasses import replace

from bridge.core.builds import Ending, Outcome
from bridge.core.names import exit_step
from bridge.web.log_views import FOLLOWED_BYTES, LONGEST_LINE_BYTES, PAGE_LINES, PIECE_CHARACTERS
from tests.web.dom import parsed
from tests.web.test_api import a_build, a_running
from tests.web.test_pages import HOSTILE, page_at
from tests.web.worlds import a_world

LOG = "/runs/push-r1/steps/build/log"


def a_growing_world(log=""):
    world = a_world()
    world.runs.add(a_running())
    return world, a_build(world, log=log)


def ended(world, build, ending=Ending.SUCCEEDED, tail=""):
    (known,) = [one for one in world.builds.builds if one.id == build]
    world.builds.record(known, Outcome(ending, "", 1.0, tail=tail))


def follower(page):
    (found,) = page.all("span", cls="follower")
    return found


def test_a_log_is_followed_piece_by_piece_until_it_ends():
    world, build = a_growing_world("one\n")
    first = follower(page_at(world, "/runs/push-r1"))
    assert first["hx-trigger"].startswith("load")
    assert (first["hx-target"], first["hx-swap"]) == ("closest code", "innerHTML")
    piece = page_at(world, first["hx-get"])
    assert piece.text == "one\n"
    second = follower(piece)
    assert (second["hx-target"], second["hx-swap"]) == ("this", "outerHTML")
    assert world.client.get(second["hx-get"]).status_code == 204
    world.builds.write_log(build, "two\nthr")
    piece = page_at(world, second["hx-get"])
    assert piece.text == "two\n"
    world.builds.write_log(build, "ee")
    assert world.client.get(follower(piece)["hx-get"]).status_code == 204
    ended(world, build)
    piece = page_at(world, follower(piece)["hx-get"])
    assert piece.text == "three"
    piece = page_at(world, follower(piece)["hx-get"])
    assert piece.all("span", cls="follower") == []
    assert "ends here" in piece.text


def test_what_a_build_writes_is_text_in_a_piece_too():
    world, _ = a_growing_world(HOSTILE.replace("\ud800", "") + "\n\x1b[31m  indented\x1b[0m\n")
    piece = page_at(world, f"{LOG}/more")
    assert "<script>alert(1)</script>" in piece.text
    assert piece.all("script") == []
    assert "\x1b" not in piece.text
    assert "\n  indented\n" in piece.text


def test_a_line_that_does_not_end_is_shown_when_it_gets_long():
    world, build = a_growing_world("." * LONGEST_LINE_BYTES)
    assert world.client.get(f"{LOG}/more").status_code == 204
    world.builds.write_log(build, ".é"[:2])
    assert page_at(world, f"{LOG}/more").text.startswith("....")


def test_a_piece_of_megabytes_is_cut_and_says_so():
    world, _ = a_growing_world("".join(f"line {n}\n" for n in range(100_000)))
    text = page_at(world, f"{LOG}/more").text
    assert "characters left out" in text
    assert len(text) < PIECE_CHARACTERS + 200
    assert text.endswith("line 99999\n")


def test_nobody_follows_beyond_what_a_page_can_hold():
    world, build = a_growing_world("x" * 70 + "\n")
    world.builds.write_log(build, ("y" * 1023 + "\n") * (FOLLOWED_BYTES // 1024))
    piece = page_at(world, f"{LOG}/more")
    assert piece.all("span", cls="follower") == []
    assert "whole log as text" in piece.text


def test_a_page_of_its_own_shows_a_log_from_the_beginning_and_links_to_the_text():
    world, build = a_growing_world("\x1b[32mone\x1b[0m\n  two\n")
    ended(world, build, tail="two\n")
    page = page_at(world, LOG)
    assert page.one("h1").words == "Log of build, build 1"
    assert page.one("pre", cls="log").text == "one\n  two"
    (link,) = [one for one in page.one("main").all("a") if "log.txt" in one["href"]]
    answer = world.client.get(link["href"])
    assert (answer.mimetype, answer.data) == ("text/plain", b"\x1b[32mone\x1b[0m\n  two\n")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert page.all("span", cls="follower") == []


def test_a_page_of_its_own_of_a_long_log_is_its_end():
    world, build = a_growing_world("".join(f"{n}\n" for n in range(PAGE_LINES + 5)))
    ended(world, build)
    page = page_at(world, LOG)
    assert page.one("pre", cls="log").text.startswith("5\n6\n")
    assert "This is the end of it" in page.words


def test_of_a_log_that_is_gone_the_kept_end_is_shown():
    world, build = a_growing_world("all of it\n")
    ended(world, build, tail="kept\n")
    world.builds.lose_log(build)
    assert page_at(world, LOG).one("pre", cls="log").text == "kept"
    assert world.client.get(f"{LOG}.txt").text == "kept\n"


def test_each_build_has_its_log():
    world, first = a_growing_world("first\n")
    ended(world, first)
    a_build(world, number=2, log="second\n")
    assert world.client.get(f"{LOG}.txt").text == "second\n"
    assert world.client.get(f"{LOG}.txt?build=1&epoch=1").text == "first\n"
    links = [one["href"] for one in page_at(world, "/runs/push-r1").all("a") if one["href"].startswith(f"{LOG}?")]
    assert links == [f"{LOG}?build=1&epoch=1", f"{LOG}?build=2&epoch=1"]


def test_the_exit_event_has_its_log_too():
    world = a_world()
    world.runs.add(a_running())
    ended(world, a_build(world, step=exit_step(1), log="told everybody\n"), tail="told everybody\n")
    page = page_at(world, "/runs/push-r1")
    section = page.one("section", aria_labelledby="exit-event")
    assert "told everybody" in section.one("pre").text
    (link,) = [one for one in section.all("a") if one["href"].endswith("log?build=1&epoch=1")]
    assert page_at(world, link["href"]).one("h1").words == "Log of exit event of attempt 1, build 1"


def test_a_log_that_there_is_not_is_a_page_that_says_so():
    world, _ = a_growing_world()
    for path in (f"{LOG}?build=9", "/runs/push-r1/steps/none/log", "/runs/none/steps/build/log", f"{LOG}?epoch=9"):
        assert page_at(world, path, 404).one("h1").words == "Not Found"
    assert "offset" in page_at(world, f"{LOG}/more?offset=x", 400).one("main").words


def test_who_may_not_read_sees_no_page_and_no_piece():
    world = a_world(loopback_only=False)
    world.runs.add(a_running())
    a_build(world, log="secret\n")
    paths = ["/", "/live", "/runs/push-r1", "/runs/push-r1/live", LOG, f"{LOG}/more", f"{LOG}.txt", "/projects"]
    for path in [*paths, "/projects/acme/widgets"]:
        answer = world.client.get(path)
        assert answer.status_code == 401
        assert "secret" not in answer.text
        assert "push-r1" not in parsed(answer.text).one("main").text


def test_a_retried_step_shows_the_log_of_its_newest_build():
    world, first = a_growing_world("first\n")
    ended(world, first, Ending.FAILED, tail="first\n")
    run = world.runs.read("push-r1")
    later = replace(run.attempt, n=2, epoch=2)
    world.runs.change("push-r1", lambda one: replace(one, state=replace(one.state, attempts=(run.attempt, later))))
    a_build(world, epoch=2, log="after the rerun\n")
    step = page_at(world, "/runs/push-r1").all("li", cls="step")[0]
    assert "after the rerun" in step.one("pre").text
    assert len(step.one("ul", cls="builds").all("li")) == 2
