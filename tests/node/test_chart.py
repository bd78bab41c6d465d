"""The chart on a node: its pods become Ready, work, lose nothing when they are killed, and are upgraded at work.

No Argo runs here: that a Workflow comes out is what is looked at, and how it ends is played.
"""

import pytest

from tests.cluster.auditing import audited
from tests.cluster.client import path
from tests.node.pods import RESTRICTED, logs, make_pod_of_template, wait_for_end
from tests.node.releases import PIPELINE, Deliveries, Release, chart_before


@pytest.fixture
def make_release(admin, control_plane, image, make_namespace):
    """`make_release()` → namespaces and a project, nothing installed."""
    made = []

    def make() -> Release:
        home, runs = make_namespace(labels=RESTRICTED), make_namespace(labels=RESTRICTED)
        release = Release(control_plane, admin, image, home, runs, make_namespace())
        release.make_project()
        made.append(release)
        return release

    yield make
    for release in made:
        release.uninstall()


@pytest.fixture
def release(make_release):
    """One that is installed, and Ready."""
    installed = make_release()
    installed.helm("install")
    installed.wait_until_ready()
    return installed


def workflows_created(release):
    """Names of all Workflows that were ever created, by the API server's own account."""
    asked = audited(release.control_plane, release.runs, verb="create", resource="workflows")
    return [one.name for one in asked if one.code == 201]


def test_an_event_becomes_a_workflow_whose_pods_make_a_build_follow_it_and_close_the_run(release, admin, image):
    """As the accounts that the chart made for them. Argo and Brigade are played, the pods are real."""
    run = release.deliver()
    workflow = release.wait_for_workflow(run)
    template = admin.get(path("workflowtemplates", release.runs, PIPELINE))
    step = make_pod_of_template(admin, release.runs, workflow, template, "event")
    release.play_brigade("echo from the worker; echo and again")
    assert wait_for_end(admin, release.runs, step)["exitCode"] == 0, logs(admin, release.runs, step)
    said = logs(admin, release.runs, step)
    assert "from the worker\nand again\n" in said
    release.play_argo(run, "Succeeded")
    handler = make_pod_of_template(admin, release.runs, workflow, template, "exit")
    assert wait_for_end(admin, release.runs, handler)["exitCode"] == 0, logs(admin, release.runs, handler)
    release.wait_until_closed(run, "succeeded")


def test_a_gateway_pod_and_the_leader_are_killed_and_nothing_is_lost_or_doubled(release):
    release.eventually(lambda: bool(release.leader()), "somebody leads")
    first_leader = release.leader()
    with Deliveries(release) as deliveries:
        deliveries.wait_for(5)
        release.kill(release.pods("gateway")[0]["metadata"]["name"])
        deliveries.wait_for(5)
        release.kill(first_leader)
        deliveries.wait_for(20)
    taken = deliveries.runs
    assert len(set(taken)) == len(taken)
    # What was stored without an answer was sent again, with the same delivery id: it is the same run.
    assert set(release.records()) == set(taken)
    release.wait_for_workflows(taken)
    assert sorted(workflows_created(release)) == sorted(taken)
    assert len(release.pods("controller")) == 2


def test_an_upgrade_takes_over_a_run_in_flight_and_loses_no_event(make_release, image, control_plane, tmp_path):
    before = image.under(control_plane.folder, f"{image.name}-before")
    release = make_release()
    release.helm("install", chart=chart_before(tmp_path), image=before)
    release.wait_until_ready()
    run = release.deliver()
    workflow = release.wait_for_workflow(run)
    release.play_argo(run, "Running")
    with Deliveries(release) as deliveries:
        deliveries.wait_for(3)
        release.helm("upgrade")
        release.wait_until_ready()
        deliveries.wait_for(3)
    pods = [*release.pods("gateway"), *release.pods("controller")]
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {image.name}
    taken = {run, *deliveries.runs}
    assert set(release.records()) == taken
    release.wait_for_workflows(taken)
    assert release.workflows()[run]["metadata"]["uid"] == workflow["metadata"]["uid"]
    release.play_argo(run, "Succeeded")
    release.wait_until_closed(run, "succeeded")
    assert sorted(workflows_created(release)) == sorted(taken)
