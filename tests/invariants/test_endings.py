"""docs/endings.md says what the controller does: its diagram has every action, its table every end, each within its bound."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bridge.core import obligations as ob
from bridge.core.builds import Ending
from bridge.core.concurrency import Concurrency
from bridge.core.events import Revision
from bridge.core.mending import ended_state
from bridge.core.runs import Act, Kind, State, with_act
from bridge.core.strays import Stray
from bridge.errors import BadPipeline, Forbidden, StatusNotPosted, UnknownProject
from bridge.flows.superseding import ListedGroups
from tests import recorded
from tests.fakes import some_event, some_run
from tests.invariants import drops
from tests.invariants.stage import LOOK_SECONDS, RUN, Ended, Stage, played
from tests.invariants.world import BOUND_SECONDS, SOON_SECONDS, _without_verdict

PAGE = (Path(__file__).parents[2] / "docs" / "endings.md").read_text()
HOUR_SECONDS = 3600.0
NOTHING_FIRED = {"exit event is refused", "held", "no pipeline", "record damaged"}
"""Of these no exit event can be built, or nobody knows of one."""
NO_HANDLER = "[brigade:app] no-after: fired\n"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    seen_in: str
    verdict: str
    status: str
    bound: str


def rows() -> list[Row]:
    found = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 5 and "`" in cells[1]:
            found += [Row(one, *cells[2:]) for one in re.findall(r"`([^`]+)`", cells[1])]
    return found


def started() -> Stage:
    stage = Stage()
    stage.look()
    stage.clock.advance(10)
    stage.set(nodes={"build": ("Running", "", "")})
    stage.look()
    return stage


def step_ended(stage: Stage, code: int, message: str = "") -> None:
    phase = "Succeeded" if code == 0 else "Failed"
    stage.set(phase=phase, nodes={"build": (phase, str(code), message or f"main: Error (exit code {code})")})


def failing(stage: Stage) -> Stage:
    stage.build("build", code=1)
    step_ended(stage, 2)
    return stage


def succeeding(stage: Stage) -> Stage:
    stage.build("build", code=0)
    step_ended(stage, 0)
    return stage


def without_handler(code: int) -> Ended:
    stage = started()
    one = stage.build("build", code=None)
    stage.builds.succeed(one, log=NO_HANDLER)
    step_ended(stage, code)
    return stage.close()


def step_timeout() -> Ended:
    stage = started()
    one = stage.build("build", code=None)
    (build,) = stage.builds.builds
    stage.builds.give_up(build, reason="timed out after 120 s", ending=Ending.TIMED_OUT)
    assert build.id == one
    step_ended(stage, 124)
    return stage.close()


def lost_too_often() -> Ended:
    stage = started()
    for _ in range(6):
        stage.builds.lose(stage.build("build", code=None))
    step_ended(stage, 69)
    return stage.close()


def brigade_away() -> Ended:
    stage = started()
    stage.build("build", code=None)
    (build,) = stage.builds.builds
    reason = "lost: not started within 300 s; is Brigade's controller away?"
    stage.builds.give_up(build, reason=reason, ending=Ending.LOST)
    step_ended(stage, 69)
    return stage.close()


def build_dropped() -> Ended:
    stage = started()
    stage.builds.sweep(stage.build("build", code=None))
    return succeeding(stage).close()


def stuck(message: str | None = None, **nodes: tuple[str, str, str]) -> Ended:
    """Argo says this and nothing more, until it is told to end."""
    stage = Stage()
    stage.look()
    if message is not None:
        stage.set(phase="Pending" if not nodes else "Running", nodes=nodes or None, message=message)
    stage.engine.over = True
    return stage.close()


def cancelled() -> Ended:
    stage = started()
    act = Act(Kind.CANCEL, "q", 1, "ann", "cli", stage.clock.now())
    stage.runs.change(RUN, lambda run: with_act(run, act))
    stage.now_it_shows()
    stage.engine.over = True
    return stage.close()


def superseded() -> Ended:
    stage = started()
    stage.pipelines.pipelines["push"] = replace(stage.pipeline, concurrency=Concurrency.BRANCH)
    stage.controller = replace(stage.controller, groups=ListedGroups(stage.runs))
    newer = some_event(delivery="d2", payload=b"", revision=Revision("d" * 40, "refs/heads/main"))
    stage.runs.add(some_run("push-newer", event=newer, accepted=stage.clock.now()))
    stage.now_it_shows()
    stage.engine.over = True
    return stage.close()


def held() -> Ended:
    stage = Stage()
    stage.runs.change(RUN, lambda run: replace(run, state=State(held="a pull request of a fork by NONE")))
    stage.now_it_shows()
    return stage.close()


def no_pipeline() -> Ended:
    stage = Stage()
    stage.pipelines.pipelines.clear()
    stage.now_it_shows()
    return stage.close()


def refused() -> Ended:
    stage = Stage()
    stage.engine.fail("submit", "before", BadPipeline("its template has no entrypoint"), times=999)
    stage.now_it_shows()
    return stage.close()


def refused_until_the_deadline() -> Ended:
    stage = Stage()
    stage.engine.fail("submit", "before", Forbidden("forbidden: exceeded quota: objects"), times=9999)
    while stage.run.verdict is None:
        try:
            return stage.close()
        except Forbidden:
            stage.clock.advance(LOOK_SECONDS)
    return stage.ended()


def exit_event(trouble: Callable[[Stage, str], object]) -> Ended:
    stage = failing(started())
    stage.builds.on_create[:] = [lambda spec: trouble(stage, spec.id)]
    return stage.close()


def exit_event_refused() -> Ended:
    stage = failing(started())
    stage.builds.fail("create", "before", UnknownProject("there is no project acme/widgets"), times=9999)
    while True:
        try:
            return stage.close()
        except UnknownProject:
            stage.clock.advance(LOOK_SECONDS)


def verdict_lost() -> Ended:
    stage = failing(started())
    stage.close()
    stage.runs.change(RUN, _without_verdict)
    stage.now_it_shows()
    ended = stage.close()
    assert [one.report.state for one in stage.reports.posts] == ["pending", "failure"], "it stood"
    return ended


def record_damaged() -> Ended:
    """As bridge.cluster.runs mends it."""
    stage = started()
    stage.build("build", code=None)
    mended = ended_state(stage.run.event, attempt=2, at=stage.clock.now())
    stage.runs.change(RUN, lambda run: replace(run, state=mended, acts=()))
    stage.now_it_shows()
    return stage.close()


def resubmitted() -> Ended:
    stage = started()

    class Copies:
        def __init__(self):
            self.left = [Stray(f"{RUN}-x1", "u9")]

        def of(self, run):
            return tuple(self.left)

        def end(self, stray):
            self.left.remove(stray)

    copies = Copies()
    stage.controller = replace(stage.controller, strays=copies)
    ended = succeeding(stage).close()
    assert copies.left == []
    return ended


def down_for_an_hour() -> Ended:
    stage = failing(started())
    stage.clock.advance(HOUR_SECONDS)
    stage.now_it_shows()
    return stage.close()


def down_past_the_deadline() -> Ended:
    stage = started()
    stage.engine.workflow["spec"]["suspend"] = True
    stage.engine.needs = "stop"
    stage.engine.over = True
    stage.clock.advance(HOUR_SECONDS)
    stage.now_it_shows()
    return stage.close()


def github_away() -> Ended:
    stage = failing(started())
    stage.reports.heal()
    until = stage.clock.now() + 600
    tried = []

    def away() -> None:
        tried.append(stage.clock.now())
        if stage.clock.now() < until:
            raise StatusNotPosted("500")

    stage.reports.meanwhile("post", "before", away, times=9999)
    ended = stage.close()
    assert len(tried) < 30, "no hot loop"
    assert stage.clock.now() < until + 310, "GitHub is asked again at least every five minutes"
    return ended


HISTORIES: dict[str, Callable[[], Ended]] = {
    "no handler": lambda: without_handler(3),
    "nothing to do": lambda: without_handler(0),
    "step timeout": step_timeout,
    "lost too often": lost_too_often,
    "Brigade away": brigade_away,
    "build dropped": build_dropped,
    "mutex": lambda: stuck("Waiting for ci/Mutex/m2 lock. Lock status: 0/1"),
    "parallelism": lambda: stuck(
        "Workflow processing has been postponed because too many workflows are already running"
    ),
    "Argo away": stuck,
    "goes on": lambda: stuck("", build=("Running", "", "")),
    "cancelled": cancelled,
    "superseded": superseded,
    "held": held,
    "no pipeline": no_pipeline,
    "refused": refused,
    "refused until the deadline": refused_until_the_deadline,
    "exit event fails": lambda: exit_event(lambda stage, one: stage.builds.break_down(one)),
    "exit event hangs": lambda: exit_event(lambda stage, one: stage.builds.start(one)),
    "exit event is refused": exit_event_refused,
    "verdict lost": verdict_lost,
    "record damaged": record_damaged,
    "resubmitted": resubmitted,
    "down for an hour": down_for_an_hour,
    "down past the deadline": down_past_the_deadline,
    "GitHub away": github_away,
}


def test_the_diagram_has_every_kind_of_action_and_no_other():
    diagram = PAGE.partition("```mermaid")[2].partition("```")[0]
    missing = [kind for kind in drops.kinds() if not re.search(rf"\b{kind}\b", diagram)]
    assert not missing, f"say in the diagram of docs/endings.md when these are owed: {missing}"


def test_every_recording_and_every_history_is_in_the_table_once():
    found = [row.seen_in for row in rows()]
    assert sorted(found) == sorted([*recorded.names("argo"), *HISTORIES])


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.seen_in)
def test_it_ends_as_the_table_says_within_its_bound(row):
    ended = HISTORIES[row.seen_in]() if row.seen_in in HISTORIES else played(row.seen_in)
    assert (ended.verdict, ended.status) == (row.verdict, row.status)
    bound = float(re.search(r"(\d+) s", row.bound)[1])
    assert ended.of_deadline == row.bound.startswith("deadline"), f"T counts from its end that shows: {ended}"
    assert ended.after + LOOK_SECONDS <= bound, f"{ended.after:g} s"
    assert ended.fired == (ended.verdict != "succeeded" and row.seen_in not in NOTHING_FIRED)


def test_the_rungs_are_as_the_page_says():
    rungs = "touch at once, Stop after 60 s, Terminate after 120 s, delete after 180 s"
    assert rungs in " ".join(PAGE.split())
    assert (ob.RUNG_SECONDS, ob.LINGER_SECONDS) == (60, 180)
    assert BOUND_SECONDS == 3 * ob.RUNG_SECONDS + SOON_SECONDS == 210
