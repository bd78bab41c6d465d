import pytest

from bridge.cluster.gateway import TOKEN_FILE
from bridge.cluster.tokens import TOKEN_AUDIENCE
from bridge.core import workflows
from bridge.core.runs import Report
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.errors import BadSettings
from bridge.github.statuses import GITHUB, GITHUB_APP
from bridge.ports import NoToken
from bridge.settings import load
from bridge.wiring.reporting import RECORD, cluster_reports, github_app, installation_tokens
from tests.fakes import FakeProjects, some_event, some_run
from tests.github.apps import APP_ID, key_file, with_app
from tests.web.worlds import a_project

PROJECTS = FakeProjects(
    [
        a_project("acme/widgets"),
        a_project("acme/gadgets", token="ghp_own"),
        a_project("acme/gizmos"),
        a_project("other-name", repository="acme/widgets"),
    ]
)


@pytest.fixture
def github():
    with FakeGitHub(tokens=["ghp_own"]) as fake:
        with_app(fake, "acme/widgets")
        yield fake


@pytest.fixture
def settings(github, tmp_path):
    return load(github_app_id=APP_ID, github_app_key_file=key_file(tmp_path), github_api_url=github.url)


def test_a_status_of_a_cluster_goes_to_the_app_or_the_projects_token_or_stays_in_the_record(github, settings):
    reports = cluster_reports(settings, PROJECTS)

    def taken_by(project):
        run = some_run(event=some_event(project=project, payload=b""))
        return reports.post(run, Report(f"bridge/{project}", "success", "done", 1), url="")

    named = ("acme/widgets", "acme/gadgets", "acme/gizmos", "other-name", "gone/away")
    assert [taken_by(one) for one in named] == [GITHUB_APP, GITHUB, RECORD, GITHUB_APP, RECORD]
    assert [one.repository for one in github.history] == ["acme/widgets", "acme/gadgets", "acme/widgets"]


def test_a_builds_token_is_of_the_projects_repository(github, settings):
    tokens = installation_tokens(settings, PROJECTS)
    assert tokens.fresh("r1", "other-name").token == github.apps.minted[0].token
    assert isinstance(tokens.fresh("r1", "acme/gizmos"), NoToken)
    assert isinstance(installation_tokens(load(), PROJECTS).fresh("r1", "acme/widgets"), NoToken)


def test_half_an_app_is_a_bad_setting(tmp_path):
    assert github_app(load()) is None
    for half in ({"github_app_id": APP_ID}, {"github_app_key_file": key_file(tmp_path)}):
        with pytest.raises(BadSettings, match="belong together"):
            github_app(load(**half))


def test_a_rendered_step_has_its_token_where_a_step_looks_and_for_whom_the_gateway_asks():
    assert f"{workflows.IDENTITY_FOLDER}/token" == str(TOKEN_FILE)
    assert workflows.AUDIENCE == TOKEN_AUDIENCE
    assert load().step_service_account == workflows.SERVICE_ACCOUNT
