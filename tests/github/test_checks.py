import traceback
from dataclasses import replace

import pytest

from bridge.core.builds import Build, BuildPhase, Ending, Outcome
from bridge.core.events import Event, Revision
from bridge.core.reports import final_report, held_report, pending_report
from bridge.core.runs import Attempt, Kind, Run, State, with_attempt, with_end, with_report
from bridge.core.verdicts import Verdict
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import StatusNotPosted, StatusPutOff, Unavailable
from bridge.flows.fencing import NotLeading
from bridge.github.app import CHECKS, App
from bridge.github.checks import GITHUB_CHECK, NOT_BY_CHECKS, GitHubChecks
from bridge.github.limits import Limits
from bridge.github.statuses import GITHUB_APP
from tests.fakes import FakeClock
from tests.github.apps import APP_ID, REPOSITORY, key_file, with_app

SHA = "0123456789abcdef0123456789abcdef01234567"
RUN = "pull-request-0123456789abcdefghjk"
CONTEXT = "bridge/pull-request/push"
LINK = f"https://ci.example/runs/{RUN}"
SECRET = "the-projects-secret"


class Scene:
    """A fake GitHub with our App, and the reporter in front of it."""

    def __init__(self, fake, folder):
        self.github = fake
        self.checks = fake.checks
        self.installation = with_app(fake)
        self.clock = FakeClock()
        self.app = App(APP_ID, key_file(folder), base_url=fake.url)
        self.builds = []
        self.leads = True
        self.reporter = GitHubChecks(
            self.app,
            builds_of=lambda _: self.builds,
            secrets_of=lambda _: (SECRET,),
            base_url=fake.url,
            limits=Limits(monotonic=self.clock.monotonic),
            leads=lambda: self.leads,
            monotonic=self.clock.monotonic,
        )

    def post(self, run, report):
        return self.reporter.post(run, report, url=LINK)

    def told(self, run, report):
        """`run` as it is once the controller wrote down who took `report`."""
        return with_report(run, report, to=self.post(run, report))

    def begun(self, run=None):
        run = run or a_run()
        return self.told(run, pending_report(run))

    def ended(self, run, verdict=Verdict.SUCCEEDED, reason=""):
        run = with_end(run, run.attempt.n, verdict=verdict, reason=reason, at=1_700_000_060.0)
        return run, final_report(run, run.attempt, verdict)

    def refused(self, run, report):
        with pytest.raises(StatusNotPosted) as caught:
            self.post(run, report)
        everything = "".join(traceback.format_exception(caught.value))
        assert not [token for token in self.github.apps.minted if token.token in everything]
        return caught.value

    def forbid(self):
        self.github.apps.change(self.installation, permissions={"statuses": "write"})


@pytest.fixture
def scene(tmp_path):
    with FakeGitHub() as fake:
        yield Scene(fake, tmp_path)


def an_attempt(n=1, kind=Kind.FIRST):
    return Attempt(n=n, kind=kind, epoch=1, begun=1_700_000_000.0, steps=("build",))


def a_run(run_id=RUN, *, commit=SHA, project=REPOSITORY):
    event = Event("github", "push", project, "d-1", Revision(commit=commit, ref="refs/heads/main"))
    run = Run(run_id, "pull-request", event, CONTEXT, "0", 1_700_000_000.0)
    return with_attempt(run, an_attempt())


def a_failed_build(tail):
    outcome = Outcome(Ending.FAILED, "the worker exited with code 1", 1_700_000_050.0, tail)
    at = 1_700_000_000.0
    return Build("b1", RUN, 1, "build", 1, 1, "build", BuildPhase.FAILED, at, at, at + 50, 1, outcome=outcome)


def test_a_run_that_goes_on_is_a_check_in_progress(scene):
    assert scene.post(a_run(), pending_report(a_run())) == GITHUB_CHECK
    [check] = scene.checks.all
    assert (check.repository, check.head_sha, check.name) == (REPOSITORY, SHA, CONTEXT)
    assert (check.status, check.conclusion, check.external_id) == ("in_progress", None, f"{RUN}/1")
    assert check.details_url == LINK
    assert scene.github.history == ()


@pytest.mark.parametrize(
    ("verdict", "conclusion"),
    [
        (Verdict.SUCCEEDED, "success"),
        (Verdict.FAILED, "failure"),
        (Verdict.ERROR, "failure"),
        (Verdict.CANCELLED, "cancelled"),
        (Verdict.TIMED_OUT, "timed_out"),
    ],
)
def test_an_attempt_that_ends_completes_its_check(scene, verdict, conclusion):
    run, report = scene.ended(scene.begun(), verdict, "because")
    assert scene.post(run, report) == GITHUB_CHECK
    [check] = scene.checks.all
    assert (check.status, check.conclusion) == ("completed", conclusion)
    assert check.completed_at == "2023-11-14T22:14:20Z"


def test_what_waits_for_approval_and_is_approved_is_two_checks(scene):
    held = replace(a_run(), state=State(held="from a fork by a stranger"))
    held = scene.told(held, held_report(held))
    scene.begun(with_attempt(held, an_attempt()))
    assert [(one.external_id, one.conclusion) for one in scene.checks.all] == [
        (f"{RUN}/0", "action_required"),
        (f"{RUN}/1", None),
    ]


def test_an_attempt_that_ended_at_once_has_one_check_that_is_complete(scene):
    run, report = scene.ended(a_run(), Verdict.ERROR, "there is no pipeline")
    assert scene.post(run, report) == GITHUB_CHECK
    assert [(one.status, one.conclusion) for one in scene.checks.all] == [("completed", "failure")]


def test_a_retry_is_another_check_of_the_same_name(scene):
    run, report = scene.ended(scene.begun(), Verdict.FAILED, "flaky")
    run = scene.told(run, report)
    scene.begun(with_attempt(run, an_attempt(2, Kind.RETRY)))
    assert [(one.external_id, one.conclusion) for one in scene.checks.all] == [
        (f"{RUN}/1", "failure"),
        (f"{RUN}/2", None),
    ]
    assert len({one.name for one in scene.checks.all}) == 1


def test_what_a_retry_leaves_in_progress_is_completed_as_it_ended_before_the_new_one_begins(scene):
    run, _ = scene.ended(scene.begun(), Verdict.TIMED_OUT, "too slow")
    scene.begun(with_attempt(run, an_attempt(2, Kind.RETRY)))
    assert [(one.external_id, one.status, one.conclusion) for one in scene.checks.written] == [
        (f"{RUN}/1", "in_progress", None),
        (f"{RUN}/1", "completed", "timed_out"),
        (f"{RUN}/2", "in_progress", None),
    ]


def test_what_an_older_run_left_in_progress_is_cancelled_and_what_is_not_ours_stays(scene):
    scene.begun(a_run("pull-request-zzzzzzzzzzzzzzzzzzzz"))
    others = [
        scene.checks.put(REPOSITORY, APP_ID, CONTEXT, SHA, external_id="a-script", status="in_progress"),
        scene.checks.put(REPOSITORY, "4712", CONTEXT, SHA, external_id=f"{RUN}/1", status="in_progress"),
    ]
    scene.begun()
    older, *rest = scene.checks.all
    assert (older.status, older.conclusion) == ("completed", "cancelled")
    assert rest[:2] == others
    assert (rest[2].external_id, rest[2].status) == (f"{RUN}/1", "in_progress")


@pytest.mark.parametrize("final", [False, True])
def test_a_post_whose_answer_was_lost_stays_one(scene, final):
    run = a_run()
    report = pending_report(run)
    if final:
        run, report = scene.ended(run)
    scene.checks.lose_answers(1)
    refusal = scene.refused(run, report)
    assert (refusal.permanent, refusal.unsure) == (False, True)
    assert scene.post(run, report) == GITHUB_CHECK
    assert len(scene.checks.all) == 1
    assert len(scene.checks.written) == 1


def test_an_end_whose_answer_was_lost_is_not_sent_again(scene):
    run, report = scene.ended(scene.begun())
    scene.checks.lose_answers(1, method="PATCH")
    scene.refused(run, report)
    assert scene.post(run, report) == GITHUB_CHECK
    assert [one.conclusion for one in scene.checks.written] == [None, "success"]


def test_a_pending_report_that_comes_late_changes_nothing(scene):
    begun = scene.begun()
    run, report = scene.ended(begun)
    scene.post(run, report)
    assert scene.post(begun, pending_report(begun)) == GITHUB_CHECK
    assert [one.conclusion for one in scene.checks.all] == ["success"]


def test_two_checks_of_one_attempt_are_both_completed(scene):
    run = scene.begun()
    scene.checks.put(REPOSITORY, APP_ID, CONTEXT, SHA, external_id=f"{RUN}/1", status="in_progress")
    run, report = scene.ended(run)
    scene.post(run, report)
    assert [one.conclusion for one in scene.checks.all] == ["success", "success"]


def test_a_commit_with_hundreds_of_checks_is_looked_through(scene):
    run = scene.begun()
    for number in range(230):
        scene.checks.put(REPOSITORY, APP_ID, CONTEXT, SHA, external_id=str(number), status="completed")
    run, report = scene.ended(run)
    scene.post(run, report)
    assert scene.checks.all[0].conclusion == "success"
    assert len(scene.checks.all) == 231


def test_without_a_commit_or_the_whole_of_it_somebody_else_takes_the_report(scene):
    for commit in ("", "main", SHA[:12]):
        run = a_run(commit=commit)
        assert scene.post(run, pending_report(run)) == NOT_BY_CHECKS
    run = a_run(project="no repository")
    assert scene.post(run, pending_report(run)) == NOT_BY_CHECKS
    assert scene.checks.requests == 0


def test_an_app_that_may_not_write_checks_leaves_it_to_others(scene):
    scene.forbid()
    assert scene.post(a_run(), pending_report(a_run())) == NOT_BY_CHECKS
    assert scene.checks.requests == 0
    other = a_run(project="acme/gadgets")
    assert scene.post(other, pending_report(other)) == NOT_BY_CHECKS


def test_a_refusal_is_believed_for_a_while(scene):
    scene.checks.fail_next(2, 403, "Resource not accessible by integration")
    assert scene.post(a_run(), pending_report(a_run())) == NOT_BY_CHECKS
    asked = scene.checks.requests
    assert asked == 2
    assert scene.post(a_run(), pending_report(a_run())) == NOT_BY_CHECKS
    assert scene.checks.requests == asked
    scene.clock.advance(301)
    assert scene.post(a_run(), pending_report(a_run())) == GITHUB_CHECK


def test_one_refusal_is_asked_again_with_a_new_token(scene):
    scene.app.token(REPOSITORY, CHECKS)
    scene.github.apps.revoke_tokens()
    assert scene.post(a_run(), pending_report(a_run())) == GITHUB_CHECK
    assert len(scene.github.apps.minted) == 2


def test_an_attempt_that_has_a_check_gets_no_status_when_the_permission_goes(scene):
    run, report = scene.ended(scene.begun())
    scene.app.drop(REPOSITORY, CHECKS, scene.app.token(REPOSITORY, CHECKS))
    scene.forbid()
    refusal = scene.refused(run, report)
    assert (refusal.permanent, refusal.retry_after_seconds) == (False, 300)
    assert "checks: write" in str(refusal)
    run = with_attempt(run, an_attempt(2, Kind.RETRY))
    assert scene.post(run, pending_report(run)) == NOT_BY_CHECKS


def test_a_run_that_was_reported_by_statuses_goes_on_with_them(scene):
    run = with_report(a_run(), pending_report(a_run()), to=GITHUB_APP)
    ended, report = scene.ended(run)
    assert scene.post(ended, report) == NOT_BY_CHECKS
    retried = with_attempt(ended, an_attempt(2, Kind.RETRY))
    assert scene.post(retried, pending_report(retried)) == NOT_BY_CHECKS
    in_the_record = with_report(a_run(), pending_report(a_run()), to="record")
    ended, report = scene.ended(in_the_record)
    assert scene.post(ended, report) == GITHUB_CHECK


@pytest.mark.parametrize("status", [500, 502, 301])
def test_other_refusals_are_told_as_they_are(scene, status):
    scene.checks.fail_next(1, status, "no", method="POST")
    refusal = scene.refused(a_run(), pending_report(a_run()))
    assert not refusal.permanent
    assert str(status) in str(refusal)


def test_an_output_that_github_does_not_take_does_not_keep_a_check_from_ending(scene):
    run, report = scene.ended(scene.begun(), Verdict.FAILED, "step build failed")
    scene.checks.fail_next(1, 422, "it has something in it")
    scene.checks.fail_next(1, 422, "it has something in it", method="PATCH")
    refusal = scene.refused(run, report)
    assert refusal.permanent
    assert scene.post(run, report) == GITHUB_CHECK
    [check] = scene.checks.all
    assert (check.conclusion, check.title) == ("failure", "see its page")


def test_a_check_that_github_does_not_take_at_all_is_left_to_others(scene):
    scene.checks.fail_next(2, 422, "no", method="POST")
    assert scene.post(a_run(), pending_report(a_run())) == NOT_BY_CHECKS
    assert scene.post(a_run(), pending_report(a_run())) == GITHUB_CHECK


def test_a_limit_is_waited_for_and_no_reason_for_statuses(scene):
    scene.checks.fail_next(1, 403, "You have exceeded a secondary rate limit")
    assert scene.refused(a_run(), pending_report(a_run())).retry_after_seconds == 60
    assert isinstance(scene.refused(a_run(), pending_report(a_run())), StatusPutOff)
    scene.clock.advance(61)
    scene.checks.fail_next(1, 429, "slow down")
    assert scene.refused(a_run(), pending_report(a_run())).retry_after_seconds == 60


def test_a_github_that_is_away_is_tried_again(scene):
    scene.app.token(REPOSITORY, CHECKS)
    scene.github.offline = True
    assert not scene.refused(a_run(), pending_report(a_run())).permanent


def test_who_does_not_lead_any_more_writes_nothing(scene):
    scene.leads = False
    with pytest.raises(NotLeading):
        scene.post(a_run(), pending_report(a_run()))
    assert scene.checks.all == ()


def test_the_failed_log_is_shown_without_secrets_and_github_takes_it_at_its_longest(scene):
    run = scene.begun()
    token = scene.app.token(REPOSITORY, CHECKS).token
    scene.builds = [a_failed_build(f"\x00\x1b[31m{SECRET}\r\n{token}\n" + "é" * 40_000 + "\n``````\nthe end")]
    run, report = scene.ended(run, Verdict.FAILED, f"step build failed: {SECRET}")
    scene.post(run, report)
    [check] = scene.checks.all
    assert check.conclusion == "failure"
    everything = check.title + check.summary + check.text
    assert SECRET not in everything
    assert token not in everything
    assert "the end\n```````" in check.text


def test_without_builds_it_is_told_all_the_same(scene):
    def away(_run):
        raise Unavailable("the API server does not answer")

    reporter = GitHubChecks(scene.app, builds_of=away, base_url=scene.github.url)
    run, report = scene.ended(a_run(), Verdict.FAILED, "step build failed")
    assert reporter.post(run, report, url=LINK) == GITHUB_CHECK
    assert scene.checks.all[0].conclusion == "failure"
