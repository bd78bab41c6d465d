import pytest

from bridge.core.reports import final_report, pending_report
from bridge.core.runs import Attempt, Kind, with_attempt, with_end, with_report
from bridge.core.verdicts import Verdict
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.github.checks import GITHUB_CHECK
from bridge.github.statuses import GITHUB, GITHUB_APP
from bridge.settings import load
from bridge.wiring.checking import checks_or, secrets_of
from bridge.wiring.reporting import RECORD, cluster_reports
from tests.fakes import FakeBuilds, FakeProjects, some_event, some_run
from tests.github.apps import APP_ID, key_file, with_app
from tests.web.worlds import a_project

PROJECTS = FakeProjects(
    [
        a_project("acme/widgets"),
        a_project("acme/gadgets", token="ghp_own"),
        a_project("acme/gizmos"),
        a_project("acme/statuses-alone"),
    ]
)


@pytest.fixture
def github():
    with FakeGitHub(tokens=["ghp_own"]) as fake:
        with_app(fake, "acme/widgets")
        fake.apps.install(APP_ID, "acme/statuses-alone", permissions={"statuses": "write"})
        yield fake


@pytest.fixture
def settings(github, tmp_path):
    return load(github_app_id=APP_ID, github_app_key_file=key_file(tmp_path), github_api_url=github.url)


def reports_of(settings):
    return checks_or(cluster_reports(settings, PROJECTS), settings, PROJECTS, FakeBuilds())


def a_run(project):
    run = some_run(event=some_event(project=project, payload=b""))
    return with_attempt(run, Attempt(1, Kind.FIRST, 1, 1_700_000_000.0))


def test_a_run_is_a_check_where_the_app_may_and_else_what_it_was_before(github, settings):
    reports = reports_of(settings)
    named = ("acme/widgets", "acme/statuses-alone", "acme/gadgets", "acme/gizmos")
    taken = [reports.post(run, pending_report(run), url="") for run in map(a_run, named)]
    assert taken == [GITHUB_CHECK, GITHUB_APP, GITHUB, RECORD]
    assert [one.repository for one in github.checks.all] == ["acme/widgets"]
    assert [one.repository for one in github.history] == ["acme/statuses-alone", "acme/gadgets"]


def test_an_attempt_ends_as_it_began_when_the_app_gets_the_permission_in_between(github, settings):
    reports = reports_of(settings)
    run = a_run("acme/statuses-alone")
    run = with_report(run, pending_report(run), to=reports.post(run, pending_report(run), url=""))
    github.apps.change(1002, permissions={"statuses": "write", "checks": "write"})
    run = with_end(run, 1, verdict=Verdict.SUCCEEDED, reason="", at=1.0)
    report = final_report(run, run.attempt, Verdict.SUCCEEDED)
    assert reports_of(settings).post(run, report, url="") == GITHUB_APP
    assert github.checks.all == ()


def test_without_an_app_or_when_nobody_wants_them_there_are_no_checks(github, settings):
    for chosen in (load(github_api_url=github.url), settings.model_copy(update={"github_checks": False})):
        run = a_run("acme/widgets")
        reports_of(chosen).post(run, pending_report(run), url="")
    assert github.checks.requests == 0


def test_the_secrets_of_a_project_and_of_bridge_are_known():
    projects = FakeProjects([a_project("acme/widgets", token="ghp_own", secrets={"NPM": "of-npm"})])
    settings = load(act_tokens="first-token,second-token", default_shared_secret="by-default")
    found = set(secrets_of(settings, projects, "acme/widgets"))
    assert {"ghp_own", "of-npm", "first-token", "second-token", "by-default", "the-shared-secret"} <= found
    assert "by-default" in secrets_of(settings, projects, "gone/away")
