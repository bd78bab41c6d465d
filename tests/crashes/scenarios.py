"""What happens to a run, what it then looks like, and what holds of every run whatever was killed."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from bridge.core.names import run_id
from bridge.demonstrating.fake_github import FakeGitHub
from bridge.local import processes
from tests.crashes.worlds import PROJECT, TOKEN, World, builds_of, commit_of


@dataclass(frozen=True)
class End:
    """How a run of a pipeline ends."""

    verdict: str
    builds: Mapping[str, list[str]]
    """By step, in order."""
    fired: list[str] = field(default_factory=list)
    """The exit event's builds."""
    terminal: tuple[str, ...] = ()
    """The final statuses, one an attempt."""


@dataclass(frozen=True)
class Scenario:
    """A delivery and all that is done about it. Its name is the branch."""

    name: str
    ends: Mapping[str, End]
    """By pipeline: each of them gets one run."""
    play: Callable[[World, str, dict[str, str]], None] = lambda _world, _branch, _runs: None
    """What people and accidents do, given the branch and the runs by pipeline."""
    provider: str = "github"
    forgotten: bool = False


def played(
    folder: Path,
    scenarios: list[Scenario],
    *,
    crash_at: str = "",
    spared: Iterable[str] = (),
    meanwhile: Callable[[World], None] = lambda _world: None,
) -> World:
    """A world in `folder` in which all of these have happened together, and ended as they should."""
    with FakeGitHub(tokens=[TOKEN]) as github:
        # One post that has to be put off.
        github.fail_next(1, 502)
        with (
            World(folder, github, crash_at=crash_at, spared=spared) as world,
            ThreadPoolExecutor(len(scenarios) + 1) as pool,
        ):
            done = [pool.submit(meanwhile, world), *(pool.submit(play, world, one) for one in scenarios)]
            for one in done:
                one.result()
            judge_all(world, scenarios)
    return world


def play(world: World, scenario: Scenario) -> None:
    """From the delivery to the end, and judge it."""
    if scenario.provider == "github":
        runs = world.deliver(scenario.name)
    else:
        runs = {pipeline: world.deliver_simple(scenario.name) for pipeline in scenario.ends}
    assert runs == runs_of(scenario)
    scenario.play(world, scenario.name, runs)
    for pipeline, run in runs.items():
        _judge(world, scenario, pipeline, run)
        if scenario.forgotten:
            _forget(world, run)


def runs_of(scenario: Scenario) -> dict[str, str]:
    """The ids of its runs by pipeline."""
    delivery = f"delivery-{scenario.name}"
    return {
        pipeline: run_id(project=PROJECT, provider=scenario.provider, pipeline=pipeline, delivery=delivery)
        for pipeline in scenario.ends
    }


def judge_all(world: World, scenarios: list[Scenario]) -> None:
    """What can be said of a world only when everything in it has ended."""
    runs = Counter(run["pipeline"] for run in world.runs())
    wanted = Counter(pipeline for one in scenarios if not one.forgotten for pipeline in one.ends)
    assert runs == wanted, "one run for each delivery and pipeline"
    begun = Counter(world.begun())
    assert set(begun.values()) <= {1}, f"no id is built twice: {begun.most_common(3)}"


def _judge(world: World, scenario: Scenario, pipeline: str, run: str) -> None:
    end = scenario.ends[pipeline]
    found = world.until_closed(run)
    told = f"{run}: {found['timeline']}"
    assert found["verdict"] == end.verdict, f"{found['reason']}: {told}"
    for step, endings in end.builds.items():
        built = [build["state"] for build in builds_of(found, step)]
        assert built == endings, f"{step}: {built}, not {endings}; {told}"
    assert [build["state"] for build in found["exit_builds"]] == end.fired, told
    builds = [*found["exit_builds"], *(build for step in end.builds for build in builds_of(found, step))]
    ids = [build["id"] for build in builds]
    assert len(ids) == len(set(ids)), f"no id is used twice: {ids}"
    _judge_statuses(world, scenario, found, end)
    _judge_notifications(world, found, end)
    for build in ids:
        assert not processes.marked(world.build_folder(run, build).marks), f"build {build} still runs"
    workflow = world.workflow(run)
    assert workflow is None or workflow.finished, f"of a closed run nothing runs: {workflow}"


def _judge_statuses(world: World, scenario: Scenario, found, end: End) -> None:
    """One terminal status an attempt, the last one last; pending at most once an attempt, and before it."""
    if scenario.provider != "github":
        assert found["status"]["given_up"], "a status that nobody can take is given up"
        return
    commit, context = commit_of(scenario.name), found["status"]["context"]
    states = [one.state for one in world.github.history if (one.sha, one.context) == (commit, context)]
    assert tuple(state for state in states if state != "pending") == end.terminal, f"{found['id']}: {states}"
    assert states[-1] == end.terminal[-1], f"{found['id']}: {states}"
    assert all(pair != ("pending", "pending") for pair in pairwise(states)), states


def _judge_notifications(world: World, found, end: End) -> None:
    """An endpoint was told of all of it, in its order, whoever was killed."""
    run, closing = found["id"], f"{found['attempt']}:closed"
    world.until(lambda: closing in world.told(run), f"{run}: its endpoint to be told that it is closed")
    told = world.told(run)
    begun = [f"{one['n']}:started" for one in found["attempts"]]
    ended = {one.split(":")[1] for one in told if one.endswith(":finished")}
    assert (told[0], told[-1]) == ("accepted", closing), told
    assert [one for one in told if one.endswith(":started")] == begun, told
    assert set(end.builds) <= ended, told


def _forget(world: World, run: str) -> None:
    world.forget(run)
    assert not world.is_known(run)
    world.until(lambda: not world.leftovers(run), f"everything of {run} to be gone")


def _failing_without_a_controller(world: World, branch: str, runs: dict[str, str]) -> None:
    """The step writes its ends down, and the exit handler the attempt's."""
    run = runs["broken"]
    world.until_begun(run, "test")
    world.send_away(run)
    _left_by_its_workflow(world, branch, run)
    assert world.details(run)["attempts"][0]["verdict"] == "failed", "the exit handler ends the attempt"
    world.call_back(run)


def _left_by_its_workflow(world: World, branch: str, run: str) -> None:
    """Only then the exit event's build may end: nobody but the controller writes down how."""
    world.tell("go on", branch)

    def finished():
        workflow = world.workflow(run)
        return workflow is not None and workflow.finished

    world.until(finished, f"the workflow of {run} to finish")
    world.tell("exit", branch)


def _failing_and_retried(world: World, branch: str, runs: dict[str, str]) -> None:
    run = runs["broken"]
    _left_by_its_workflow(world, branch, run)
    world.until_closed(run)
    world.tell("mended", branch)
    world.ask(run, "retry")
    world.until_details(run, lambda found: len(found["attempts"]) > 1, "to begin again")


def _cancelled(world: World, branch: str, runs: dict[str, str]) -> None:
    world.until_begun(runs["cancelled"], "test")
    world.ask(runs["cancelled"], "cancel")


def _lost(world: World, branch: str, runs: dict[str, str]) -> None:
    """The step alone notices."""
    run = runs["lost"]
    build = world.until_begun(run, "test")
    world.send_away(run)
    world.kill_build(run, build)
    world.until_begun(run, "test", 2)
    world.call_back(run)


def _losing_the_exit_build(world: World, branch: str, runs: dict[str, str]) -> None:
    """Nobody but the controller can notice."""
    run = runs["exit-lost"]
    _left_by_its_workflow(world, branch, run)

    def begun():
        builds = world.details(run)["exit_builds"]
        return builds[0]["id"] if builds and builds[0]["id"] in world.begun() else None

    world.kill_build(run, world.until(begun, "the exit event's build to begin"))


SUCCEEDED, FAILED, LOST, CANCELLED = "succeeded", "failed", "lost", "cancelled"

SCENARIOS = [
    Scenario(
        "broken",
        {"broken": End(FAILED, {"build": [SUCCEEDED], "test": [FAILED]}, [SUCCEEDED], ("failure",))},
        _failing_without_a_controller,
    ),
    Scenario(
        "flaky",
        {
            "flaky": End(SUCCEEDED, {"build": [SUCCEEDED], "test": [FAILED, SUCCEEDED]}, terminal=("success",)),
            "beside": End(SUCCEEDED, {"build": [SUCCEEDED]}, terminal=("success",)),
        },
    ),
    Scenario("stuck", {"stuck": End("timed_out", {}, terminal=("failure",))}),
    Scenario(
        "retried",
        {
            "broken": End(
                SUCCEEDED, {"build": [SUCCEEDED], "test": [FAILED, SUCCEEDED]}, [SUCCEEDED], ("failure", "success")
            )
        },
        _failing_and_retried,
    ),
    Scenario("cancelled", {"cancelled": End(CANCELLED, {"test": [CANCELLED]}, terminal=("error",))}, _cancelled),
    Scenario("lost", {"lost": End(SUCCEEDED, {"test": [LOST, SUCCEEDED]}, terminal=("success",))}, _lost),
    Scenario(
        "exit-lost",
        {"exit-lost": End(FAILED, {"test": [FAILED]}, [LOST, SUCCEEDED], ("failure",))},
        _losing_the_exit_build,
    ),
    Scenario("late", {"late": End("timed_out", {"test": ["timed_out"]}, terminal=("failure",))}),
    Scenario("plain", {"plain": End(SUCCEEDED, {"build": [SUCCEEDED]}, terminal=("success",))}, forgotten=True),
    Scenario("nowhere", {"plain": End(SUCCEEDED, {"build": [SUCCEEDED]})}, provider="GenericWebhook"),
]
