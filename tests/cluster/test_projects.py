"""Projects from Brigade's Secrets and ours, read at once or watched."""

import time

import pytest

from bridge.cluster.api import SECRETS
from bridge.cluster.projects import SecretProjects, WatchedProjects
from bridge.core.names import project_id
from bridge.errors import BadProject, UnknownProject
from tests.cluster.apis import api_of
from tests.cluster.auditing import audited

PATIENCE_SECONDS = 60
NAME = "acme/widgets"
ID = project_id(NAME)


@pytest.fixture
def api(control_plane):
    api = api_of(control_plane.admin)
    yield api
    api.close()


@pytest.fixture
def watched(api, namespace):
    made = []

    def start():
        one = WatchedProjects(api, namespace)
        made.append(one)
        one.start()
        assert one.cache.watching.synced.wait(PATIENCE_SECONDS)
        return one

    yield start
    for one in made:
        one.stop()


@pytest.fixture(params=["read", "watched"])
def projects(request, api, namespace, watched):
    """Either of them, made when the Secrets are there."""
    return watched if request.param == "watched" else lambda: SecretProjects(api, namespace)


def brigades(name=NAME, *, annotations=None, labels=None, **data):
    return {
        "metadata": {
            "name": project_id(name),
            "labels": {"app": "brigade", "component": "project", "heritage": "brigade", **(labels or {})},
            "annotations": {"projectName": name} if annotations is None else annotations,
        },
        "type": "brigade.sh/project",
        "stringData": data,
    }


def ours(name=NAME, **data):
    labels = {"component": "bridge-project"}
    return {"metadata": {"name": f"{project_id(name)}-bridge", "labels": labels}, "stringData": data}


def eventually(holds):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s"
        time.sleep(0.02)


def test_a_project_is_what_its_secret_says(api, namespace, projects):
    data = {
        "sharedSecret": "s1",
        "genericGatewaySecret": "g1",
        "github.token": "t1\n",
        "cloneURL": "https://github.com/acme/widgets.git",
        "repository": "github.com/acme/widgets",
        "secrets": '{"password": "hunter2"}',
        "brigadejsPath": "ci/brigade.js",
        "allowHostMounts": "true",
        "allowPrivilegedJobs": "false",
    }
    api.create(SECRETS, namespace, brigades(**data))
    found = projects().read(NAME)
    assert (found.name, found.id) == (NAME, ID)
    assert (found.shared_secret, found.generic_secret, found.token) == ("s1", "g1", "t1")
    assert (found.repository, found.clone_url) == ("acme/widgets", "https://github.com/acme/widgets.git")
    assert found.script == "ci/brigade.js"
    assert (found.allow_host_mounts, found.allow_privileged_jobs) == (True, False)
    assert found.secrets == {}
    assert not found.default_pipeline
    assert projects().read_by_id(ID) == found
    assert projects().all() == [found]
    assert not any(secret in repr(found) for secret in ("s1", "g1", "t1"))


def test_what_is_left_out_is_as_in_brigade(api, namespace, projects):
    api.create(SECRETS, namespace, brigades())
    found = projects().read(NAME)
    assert found.signing_secrets == ()
    assert found.allow_privileged_jobs
    assert not found.allow_host_mounts
    assert found.script == "brigade.js"


def test_our_secret_adds_what_brigades_has_no_field_for(api, namespace, projects):
    api.create(SECRETS, namespace, brigades(sharedSecret="s1"))
    api.create(
        SECRETS, namespace, ours(secondSecret="s2", defaultPipeline="true", allowedAuthors="OWNER, CONTRIBUTOR")
    )
    for found in (projects().read(NAME), projects().read_by_id(ID), *projects().all()):
        assert found.signing_secrets == ("s1", "s2")
        assert found.default_pipeline
        assert found.allowed_authors == ("OWNER", "CONTRIBUTOR")


def test_an_annotation_opts_in_too(api, namespace, projects):
    annotations = {"projectName": NAME, "bridge.brigade.sh/default-pipeline": "true"}
    api.create(SECRETS, namespace, brigades(annotations=annotations))
    assert projects().read(NAME).default_pipeline


def test_helms_projects_are_projects(api, namespace, projects):
    api.create(SECRETS, namespace, brigades(labels={"heritage": "Helm"}))
    assert projects().read(NAME).name == NAME


@pytest.mark.parametrize(
    "labels", [{"component": "build"}, {"app": "other"}, {"component": "bridge-project"}], ids=str
)
def test_another_secret_of_a_projects_name_is_no_project(api, namespace, projects, labels):
    api.create(SECRETS, namespace, brigades(labels=labels))
    with pytest.raises(UnknownProject):
        projects().read(NAME)
    assert projects().all() == []


@pytest.mark.parametrize("identity", ["", "brigade-x", "..", f"{ID}-bridge", "brigade-worker-1", ID[:-1] + "A"])
def test_what_is_no_id_is_no_project(api, namespace, projects, identity):
    api.create(SECRETS, namespace, brigades())
    api.create(SECRETS, namespace, ours())
    with pytest.raises(UnknownProject):
        projects().read_by_id(identity)


def test_without_its_name_a_project_is_known_to_those_who_name_it(api, namespace, projects):
    api.create(SECRETS, namespace, brigades(annotations={}))
    assert projects().read(NAME).name == NAME
    with pytest.raises(BadProject, match="projectName"):
        projects().read_by_id(ID)
    assert projects().all() == []


@pytest.mark.parametrize(
    ("secrets", "key"),
    [
        ([brigades(annotations={"projectName": "acme/Widgets"})], "projectName"),
        ([brigades(allowPrivilegedJobs="hunter2")], "allowPrivilegedJobs"),
        ([brigades(), ours(defaultPipeline="hunter2")], "defaultPipeline"),
        ([brigades(), ours(allowedAuthors="hunter2")], "allowedAuthors"),
        ([brigades() | {"data": {"sharedSecret": "/w=="}}], "sharedSecret"),
    ],
    ids=range(5),
)
def test_a_secret_that_cannot_be_used_says_which_key_and_hinders_no_other(api, namespace, projects, secrets, key):
    api.create(SECRETS, namespace, brigades("acme/good"))
    for secret in secrets:
        api.create(SECRETS, namespace, secret)
    known = projects()
    for read in (lambda: known.read(NAME), lambda: known.read_by_id(ID)):
        with pytest.raises(BadProject, match=key) as caught:
            read()
        assert "hunter2" not in str(caught.value)
    assert [project.name for project in known.all()] == ["acme/good"]


def test_what_is_watched_follows_the_secrets(api, namespace, watched):
    api.create(SECRETS, namespace, brigades(sharedSecret="s1"))
    known = watched()
    api.patch(SECRETS, namespace, ID, {"stringData": {"sharedSecret": "s2"}})
    eventually(lambda: known.read(NAME).shared_secret == "s2")
    api.create(SECRETS, namespace, ours(secondSecret="s3"))
    eventually(lambda: known.read(NAME).second_secret == "s3")
    api.delete(SECRETS, namespace, f"{ID}-bridge")
    eventually(lambda: known.read(NAME).second_secret == "")
    api.patch(SECRETS, namespace, ID, {"stringData": {"allowHostMounts": "maybe"}})
    eventually(lambda: known.broken() != [])
    assert known.broken() == [(ID, f"Secret {ID}: allowHostMounts: it cannot be used; write true or false")]


def test_strangers_who_name_projects_cost_one_list(control_plane, namespace, watched):
    known = watched()
    for n in range(50):
        with pytest.raises(UnknownProject):
            known.read(f"acme/{n}")
    asked = audited(control_plane, namespace, resource="secrets")
    assert [one.verb for one in asked].count("list") <= 3
    assert [one.verb for one in asked].count("get") == 0


def test_a_project_is_read_fresh_before_a_signature_is_refused(api, control_plane, namespace, watched):
    api.create(SECRETS, namespace, brigades(sharedSecret="s1"))
    known = watched()
    before = known.read(NAME)
    known.stop()
    api.patch(SECRETS, namespace, ID, {"stringData": {"sharedSecret": "s2"}})
    assert known.fresh(before).shared_secret == "s2"
    assert known.read(NAME).shared_secret == "s1"
    api.delete(SECRETS, namespace, ID)
    answers = []
    for _ in range(20):
        try:
            answers.append(known.fresh(before))
        except UnknownProject:
            answers.append(None)
    assert answers.count(None) < 20
