"""The port Reports: what everybody who takes reports has to keep to."""

from dataclasses import dataclass
from typing import Any

import pytest

from bridge.core.reports import final_report, pending_report
from bridge.core.runs import Attempt, Kind, with_attempt, with_end, with_report
from bridge.core.verdicts import Verdict
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import StatusNotPosted
from bridge.github.app import App
from bridge.github.checks import GitHubChecks
from bridge.github.statuses import GitHubStatuses
from bridge.local.board import Board
from bridge.local.database import FILE_NAME, Database
from tests.fakes import FakeReports, some_run
from tests.github.apps import APP_ID, key_file, with_app

SHA = "c" * 40
URL = "https://ci.example/runs/push-r1"
PROJECT = "acme/widgets"


@dataclass
class Side:
    """Who takes reports, what is to be seen of them there, and how to lose an answer."""

    reports: Any
    shown: Any
    """The state that the commit shows, in a status's words."""
    count: Any
    """How many things tell of the run."""
    lose: Any = None


def _fake(github, folder):
    reports = FakeReports()
    shown = lambda: next(iter(reports.statuses(SHA).values())).state  # noqa: E731
    return Side(reports, shown, lambda: len(reports.states("push-r1")))


def _board(github, folder):
    board = Board(Database(folder / FILE_NAME))
    return Side(board, lambda: board.statuses(SHA)[0].state, lambda: len(board.history(SHA)))


def _statuses(github, folder):
    statuses = GitHubStatuses(lambda _: "ghp_own", base_url=github.url)
    return Side(
        statuses, lambda: github.history[-1].state, lambda: len(github.history), lambda: github.lose_answers(1)
    )


def _checks(github, folder):
    with_app(github, PROJECT)
    checks = GitHubChecks(App(APP_ID, key_file(folder), base_url=github.url), base_url=github.url)

    def shown():
        newest = github.checks.all[-1]
        return newest.conclusion or "pending"

    def lose():
        github.checks.lose_answers(1)

    return Side(checks, shown, lambda: len(github.checks.written), lose)


SIDES = {"fake": _fake, "board": _board, "statuses": _statuses, "checks": _checks}


@pytest.fixture(params=SIDES)
def side(request, tmp_path):
    with FakeGitHub(tokens=["ghp_own"]) as github:
        yield SIDES[request.param](github, tmp_path)


def a_run():
    return with_attempt(some_run(), Attempt(1, Kind.FIRST, 1, 1_700_000_000.0, steps=("build",)))


def told(side, run, report):
    return with_report(run, report, to=side.reports.post(run, report, url=URL))


def ended(run, verdict):
    run = with_end(run, run.attempt.n, verdict=verdict, reason="", at=1_700_000_060.0)
    return run, final_report(run, run.attempt, verdict)


def test_somebody_is_named_who_took_it_and_it_is_shown(side):
    run = a_run()
    assert side.reports.post(run, pending_report(run), url=URL)
    assert side.shown() == "pending"


def test_repeating_it_is_harmless(side):
    run = a_run()
    takers = {side.reports.post(run, pending_report(run), url=URL) for _ in range(3)}
    assert len(takers) == 1
    assert side.count() == 1
    run, report = ended(run, Verdict.FAILED)
    takers |= {side.reports.post(run, report, url=URL) for _ in range(3)}
    assert len(takers) == 1
    assert (side.shown(), side.count()) == ("failure", 2)


def test_a_retry_is_shown_as_pending_and_then_as_it_ends(side):
    run = told(side, a_run(), pending_report(a_run()))
    run, report = ended(run, Verdict.FAILED)
    run = told(side, run, report)
    run = with_attempt(run, Attempt(2, Kind.RETRY, 1, 1_700_000_100.0, steps=("build",)))
    run = told(side, run, pending_report(run))
    assert side.shown() == "pending"
    run, report = ended(run, Verdict.SUCCEEDED)
    told(side, run, report)
    assert side.shown() == "success"


def test_what_was_taken_though_nobody_heard_of_it_stays_one(side):
    if side.lose is None:
        pytest.skip("not needed here: nothing is between it and who posts")
    run = a_run()
    side.lose()
    with pytest.raises(StatusNotPosted):
        side.reports.post(run, pending_report(run), url=URL)
    side.reports.post(run, pending_report(run), url=URL)
    assert (side.shown(), side.count()) == ("pending", 1)
