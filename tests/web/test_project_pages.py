import pytest

from bridge.core.pipelines import Step
from bridge.core.runs import Phase
from bridge.core.verdicts import Verdict
from bridge.web.project_views import BARS, CHART_HEIGHT
from tests.fakes import some_event, some_run
from tests.web.test_api import a_running
from tests.web.test_pages import page_at
from tests.web.worlds import PROJECT, a_pipeline, a_project, a_world

PAGE = f"/projects/{PROJECT}"


def a_closed(number, seconds, verdict=Verdict.SUCCEEDED, **changes):
    return some_run(
        f"push-r{number}",
        accepted=float(number),
        phase=Phase.CLOSED,
        verdict=verdict,
        closed=float(number) + seconds,
        **changes,
    )


def test_a_project_shows_its_pipelines_and_how_its_last_runs_went():
    world = a_world(
        a_pipeline("push", "push", steps=(Step("build"), Step("test"))), a_pipeline("other", projects=("else/*",))
    )
    world.runs.add(a_closed(1, 10))
    world.runs.add(a_closed(2, 40, Verdict.FAILED))
    page = page_at(world, PAGE)
    (section,) = page.all("section", cls="pipeline")
    assert section.one("h3").words == "push"
    assert "for push; steps build, test" in section.words
    first, second = section.all("a", cls="bar")
    assert (first["href"], second["href"]) == ("/runs/push-r1", "/runs/push-r2")
    heights = [int(bar.all("rect")[1]["height"]) for bar in (first, second)]
    assert heights == [CHART_HEIGHT // 4, CHART_HEIGHT]
    assert first.all("path") == []
    assert second.all("path")
    assert "1 of 2 succeeded, the longest took 40 s" in section.one("figcaption").words
    assert [row.one("a")["href"] for row in page.one("tbody").all("tr")] == ["/runs/push-r2", "/runs/push-r1"]


def test_a_chart_holds_the_last_runs_only_and_the_newest_at_the_right():
    world = a_world(a_pipeline("push"))
    for number in range(BARS + 5):
        world.runs.add(a_closed(number, 0))
    bars = page_at(world, PAGE).all("a", cls="bar")
    assert [bar["href"] for bar in bars] == [f"/runs/push-r{n}" for n in range(5, BARS + 5)]
    assert [int(bar.all("rect")[1]["x"]) for bar in bars] == sorted(int(bar.all("rect")[1]["x"]) for bar in bars)
    assert all(int(bar.all("rect")[1]["height"]) > 0 for bar in bars)


def test_a_project_has_a_badge_and_the_text_for_a_readme():
    world = a_world(a_pipeline("push"), public_url="https://bridge.example")
    section = page_at(world, PAGE).one("section", cls="pipeline")
    badge = "/badge/acme/widgets/push.svg"
    assert section.one("img")["src"] == badge
    assert section.one("pre").text == (
        f"[![push](https://bridge.example{badge})](https://bridge.example/projects/acme/widgets)"
    )
    assert world.client.get(badge).mimetype == "image/svg+xml"


def test_what_is_gone_is_shown_by_its_runs():
    world = a_world(a_pipeline("push"))
    world.runs.add(a_closed(1, 10, pipeline="gone"))
    world.runs.add(a_closed(2, 10, event=some_event(project="old/project")))
    assert [one.words for one in page_at(world, PAGE).all("h3")] == ["push", "gone"]
    page = page_at(world, "/projects/old/project")
    assert "There is no such pipeline for this project now" in page.words
    assert page_at(world, "/projects/never/was", 404).one("h1").words == "Not Found"


def test_the_opted_in_project_has_the_default_pipeline():
    world = a_world(
        a_pipeline("default", projects=("opted-in",)),
        projects=[a_project(), a_project("a/b", default_pipeline=True)],
    )
    assert page_at(world, PAGE).all("h3") == []
    assert [one.words for one in page_at(world, "/projects/a/b").all("h3")] == ["default"]


def test_projects_are_listed_each_with_its_newest_run():
    world = a_world(projects=[a_project(), a_project("acme/quiet")])
    world.runs.add(a_running(event=some_event(short_title="older"), accepted=1.0))
    world.runs.add(a_closed(2, 1, event=some_event(short_title="newer")))
    world.runs.add(a_closed(3, 1, event=some_event(project="old/project")))
    rows = page_at(world, "/projects").one("tbody").all("tr")
    assert [row.one("th").words for row in rows] == ["acme/quiet", "acme/widgets", "old/project"]
    assert "none lately" in rows[0].words
    assert "succeeded newer" in rows[1].words
    assert [row.one("td", cls="number").words for row in rows] == ["1", "1", "0"]


@pytest.mark.parametrize("name", ["plain", "a/b/c", "acme/widgets", "umlaut/größe"])
def test_a_project_may_have_any_name(name):
    world = a_world(a_pipeline("push", projects=("**",)), projects=[a_project(name)])
    world.runs.add(a_closed(1, 1, event=some_event(project=name)))
    link = page_at(world, "/projects").one("th", scope="row").one("a")
    page = page_at(world, link["href"])
    assert page.one("h1").words == name
    assert page_at(world, page.one("a", cls="button")["href"]).one(id="count").words.startswith("1 run")
