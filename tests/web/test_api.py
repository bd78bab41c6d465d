from dataclasses import replace

import pytest

from bridge.core.builds import BuildSpec, Ending, Outcome
from bridge.core.events import Revision
from bridge.core.names import build_id
from bridge.core.runs import Attempt, Kind, Phase
from bridge.errors import Unavailable
from tests.fakes import some_event, some_run
from tests.web.worlds import a_world

READ, ACT = "read-token", "act-token"


def a_running(run_id="push-r1", **changes):
    attempt = Attempt(n=1, kind=Kind.FIRST, epoch=1, begun=1_700_000_001.0, steps=("build", "test"), uid="u1")
    run = some_run(run_id, phase=Phase.RUNNING, **changes)
    return replace(run, state=replace(run.state, attempts=(attempt,)))


def a_build(world, *, run="push-r1", step="build", number=1, log="", epoch=1, attempt=1):
    name = build_id(run=run, epoch=epoch, step=step, number=number)
    spec = BuildSpec(
        id=name,
        run=run,
        pipeline="push",
        epoch=epoch,
        step=step,
        number=number,
        attempt=attempt,
        event=some_event(),
    )
    world.builds.create(spec)
    world.builds.start(name)
    world.builds.write_log(name, log)
    return name


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_runs_are_listed_the_newest_first():
    world = a_world(public_url="https://bridge.example")
    world.runs.add(some_run("push-old", accepted=1.0))
    world.runs.add(some_run("push-new", accepted=2.0))
    answer = world.client.get("/api/v1/runs")
    assert answer.status_code == 200
    assert [run["id"] for run in answer.json["runs"]] == ["push-new", "push-old"]
    assert answer.json["runs"][0]["url"] == "https://bridge.example/runs/push-new"


FILTERS = [
    ("project=acme/gadgets", ["b"]),
    ("pipeline=release", ["c"]),
    (f"sha={'d' * 40}", ["d"]),
    ("context=ci", ["e"]),
    ("pull_request=7", ["f"]),
    (f"sha={'d' * 7}", ["d"]),
    (f"sha={'d' * 6}", []),
    ("branch=main&limit=1", ["g"]),
    ("branch=next", []),
    ("verdict=failed", []),
    ("delivery=d1&limit=1", ["g"]),
    ("delivery=d2", []),
    ("search=ACME/gadgets%20push", ["b"]),
    ("open=true&pipeline=closed", []),
    ("open=false&pipeline=closed", ["g"]),
    ("limit=1", ["g"]),
    ("", ["g", "f", "e", "d", "c", "b"]),
]


@pytest.mark.parametrize(("query", "expected"), FILTERS)
def test_a_list_shows_what_its_filters_let_through(query, expected):
    world = a_world()
    runs = [
        some_run("b", event=some_event(project="acme/gadgets")),
        some_run("c", pipeline="release"),
        some_run("d", event=some_event(revision=Revision("d" * 40, "refs/heads/main"))),
        some_run("e", context="ci"),
        some_run("f", event=some_event(pull_request=7)),
        some_run("g", pipeline="closed", phase=Phase.CLOSED),
    ]
    for number, run in enumerate(runs):
        world.runs.add(replace(run, accepted=float(number)))
    answer = world.client.get(f"/api/v1/runs?{query}")
    assert [run["id"] for run in answer.json["runs"]] == expected


@pytest.mark.parametrize(
    "query", ["projct=acme", "limit=0", "limit=1001", "limit=x", "pull_request=x", "open=perhaps", "verdict=bad"]
)
def test_a_filter_that_cannot_be_used_is_refused_by_name(query):
    answer = a_world().client.get(f"/api/v1/runs?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json["detail"]


def test_a_list_is_paged_by_the_link_to_its_next_page():
    world = a_world()
    for number in range(5):
        world.runs.add(some_run(f"push-r{number}", accepted=float(number), pipeline="a&b"))
    world.runs.add(some_run("push-other", accepted=9.0))
    page, seen = "/api/v1/runs?pipeline=a%26b&limit=2", []
    while page:
        answer = world.client.get(page)
        assert answer.headers.get("Link") == (
            f'<{answer.json["next"]}>; rel="next"' if answer.json["next"] else None
        )
        seen.append([run["id"] for run in answer.json["runs"]])
        page = answer.json["next"]
    assert seen == [["push-r4", "push-r3"], ["push-r2", "push-r1"], ["push-r0"]]


def test_a_page_after_a_run_that_is_gone_is_not_found():
    assert a_world().client.get("/api/v1/runs?after=push-gone").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/v1/nothing", 404), ("PUT", "/api/v1/runs", 405), ("GET", "/api/v1/runs/push-r1/retry", 405)],
)
def test_what_is_no_route_is_a_problem_too(method, path, status):
    answer = a_world().client.open(path, method=method)
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    assert answer.json["status"] == status


def test_a_run_is_told_with_its_steps_and_builds():
    world = a_world()
    world.runs.add(a_running())
    world.builds.succeed(a_build(world))
    answer = world.client.get("/api/v1/runs/push-r1")
    assert answer.status_code == 200
    assert answer.json["id"] == "push-r1"
    assert [(step["name"], len(step["builds"])) for step in answer.json["steps"]] == [("build", 1), ("test", 0)]
    assert answer.json["next"]


def test_an_unknown_run_is_not_found():
    answer = a_world().client.get("/api/v1/runs/push-none")
    assert (answer.status_code, answer.content_type) == (404, "application/problem+json")


def test_when_the_records_cannot_be_read_the_answer_is_to_ask_again():
    world = a_world()
    world.runs.fail("list", "before", Unavailable("locked"))
    answer = world.client.get("/api/v1/runs")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


# Logs


def test_the_log_of_a_step_is_that_of_its_newest_build():
    world = a_world()
    world.runs.add(a_running())
    world.builds.break_down(a_build(world, log="one\n"))
    a_build(world, number=2, log="two\n")
    answer = world.client.get("/api/v1/runs/push-r1/steps/build/log")
    assert (answer.text, answer.content_type) == ("two\n", "text/plain; charset=utf-8")
    assert (answer.headers["Bridge-Build"], answer.headers["Bridge-Build-State"]) == ("2", "running")
    first = world.client.get("/api/v1/runs/push-r1/steps/build/log?build=1")
    assert first.text == "one\nit failed\n"


def test_a_log_is_followed_from_an_offset():
    world = a_world()
    world.runs.add(a_running())
    name = a_build(world, log="one\n")
    first = world.client.get("/api/v1/runs/push-r1/steps/build/log?offset=0")
    assert (first.text, first.headers["Bridge-Next-Offset"]) == ("one\n", "4")
    world.builds.write_log(name, "two\n")
    more = world.client.get("/api/v1/runs/push-r1/steps/build/log?offset=4")
    assert (more.text, more.headers["Bridge-Next-Offset"]) == ("two\n", "8")


def test_of_a_log_that_is_gone_its_kept_end_is_told():
    world = a_world()
    world.runs.add(a_running())
    name = a_build(world)
    build = world.builds.break_down(name)
    world.builds.record(build, Outcome(Ending.FAILED, "exit code 1", 1.0, tail="the end\n"))
    world.builds.lose_log(name)
    assert world.client.get("/api/v1/runs/push-r1/steps/build/log").text == "the end\n"


@pytest.mark.parametrize(
    "path", ["push-r1/steps/test/log", "push-r1/steps/build/log?build=9", "push-none/steps/build/log"]
)
def test_a_log_that_there_is_not_is_not_found(path):
    world = a_world()
    world.runs.add(a_running())
    a_build(world)
    assert world.client.get(f"/api/v1/runs/{path}").status_code == 404


# Acts


@pytest.mark.parametrize("kind", ["retry", "rerun", "cancel"])
def test_an_act_is_on_record_before_it_is_answered(kind):
    world = a_world()
    world.runs.add(a_running())
    answer = world.client.post(
        f"/api/v1/runs/push-r1/{kind}", json={"request": "q1", "who": "ada", "source": "cli"}
    )
    assert answer.status_code == 202
    assert (answer.json["run"], answer.json["accepted"]) == ("push-r1", True)
    (act,) = world.runs.records["push-r1"].acts
    assert (act.kind, act.request, act.who, act.source, act.follows) == (kind, "q1", "ada", "cli", 1)
    assert act.at == world.clock.now()


def test_the_same_request_is_on_record_once():
    world = a_world()
    world.runs.add(a_running())
    for _ in range(2):
        assert world.client.post("/api/v1/runs/push-r1/retry", json={"request": "q1"}).status_code == 202
    assert len(world.runs.records["push-r1"].acts) == 1


def test_a_request_may_be_named_by_its_header():
    world = a_world()
    world.runs.add(a_running())
    for _ in range(2):
        answer = world.client.post("/api/v1/runs/push-r1/retry", headers={"Idempotency-Key": "q7"})
        assert (answer.status_code, answer.json["attempt"]) == (202, 2)
    assert [act.request for act in world.runs.records["push-r1"].acts] == ["q7"]


def test_who_asks_second_for_the_same_attempt_is_told_which_one_comes():
    world = a_world()
    world.runs.add(a_running())
    first = world.client.post("/api/v1/runs/push-r1/retry", json={"follows": 1})
    second = world.client.post("/api/v1/runs/push-r1/retry", json={"follows": 1})
    assert (first.status_code, first.json["attempt"]) == (202, 2)
    assert (second.status_code, second.json["accepted"], second.json["attempt"]) == (200, False, 2)
    assert "attempt 2" in second.json["message"]


@pytest.mark.parametrize(
    ("said", "who"),
    [("", "ci-bot"), ("ci-bot", "ci-bot"), ("ada", "ci-bot (says: ada)")],
    ids=["none", "same", "other"],
)
def test_nobody_poses_as_somebody_else_where_it_is_known_who_asks(said, who):
    world = a_world(loopback_only=False, act_tokens=(f"ci-bot={ACT}",))
    world.runs.add(a_running())
    answer = world.client.post("/api/v1/runs/push-r1/retry", json={"who": said}, headers=bearer(ACT))
    assert answer.status_code == 202
    assert [act.who for act in world.runs.records["push-r1"].acts] == [who]


@pytest.mark.parametrize("source", ["comment", "page", "check", "x"])
def test_no_act_of_the_api_passes_for_one_from_elsewhere(source):
    world = a_world()
    world.runs.add(a_running())
    answer = world.client.post("/api/v1/runs/push-r1/retry", json={"source": source})
    assert answer.status_code == 400


def test_only_a_retry_names_steps():
    world = a_world()
    world.runs.add(a_running())
    assert world.client.post("/api/v1/runs/push-r1/rerun", json={"only": ["test"]}).status_code == 400


def test_an_act_may_name_its_steps():
    world = a_world()
    world.runs.add(a_running())
    unknown = world.client.post("/api/v1/runs/push-r1/retry", json={"only": ["deploy"]})
    assert unknown.status_code == 409
    assert world.client.post("/api/v1/runs/push-r1/retry", json={"only": ["test"]}).status_code == 202
    assert world.runs.records["push-r1"].acts[0].only == ("test",)


def test_an_act_needs_no_body():
    world = a_world()
    world.runs.add(a_running())
    assert world.client.post("/api/v1/runs/push-r1/cancel").status_code == 202


def test_an_act_for_which_there_is_nothing_to_do_says_so():
    world = a_world()
    run = a_running()
    world.runs.add(replace(run, state=replace(run.state, attempts=(replace(run.attempt, verdict="succeeded"),))))
    answer = world.client.post("/api/v1/runs/push-r1/cancel")
    assert (answer.status_code, answer.json["accepted"]) == (200, False)
    assert "nothing to cancel" in answer.json["message"]


def test_an_act_on_an_unknown_run_is_not_found():
    assert a_world().client.post("/api/v1/runs/push-none/retry").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"[]",
        b'{"requst": "q1"}',
        b'{"only": "x"}',
        b'{"who": "a\\nb"}',
        b'{"request": "' + b"x" * 300 + b'"}',
    ],
)
def test_an_act_that_cannot_be_read_is_refused(body):
    world = a_world()
    world.runs.add(a_running())
    answer = world.client.post("/api/v1/runs/push-r1/retry", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert world.runs.records["push-r1"].acts == ()


def test_an_act_in_another_form_than_json_is_refused():
    world = a_world()
    world.runs.add(a_running())
    answer = world.client.post("/api/v1/runs/push-r1/retry", data={"request": "q1"})
    assert answer.status_code == 415
    assert world.runs.records["push-r1"].acts == ()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
    ],
)
def test_pages_of_other_sites_may_not_act(headers):
    world = a_world()
    world.runs.add(a_running())
    answer = world.client.post("/api/v1/runs/push-r1/retry", headers=headers)
    assert answer.status_code == 403
    assert world.runs.records["push-r1"].acts == ()


def test_a_page_of_our_own_may_act():
    world = a_world()
    world.runs.add(a_running())
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}
    assert world.client.post("/api/v1/runs/push-r1/retry", headers=headers).status_code == 202


# Identity

READABLE = ["/", "/runs/push-r1", "/api/v1/runs", "/api/v1/runs/push-r1", "/api/v1/runs/push-r1/steps/build/log"]


def a_shared_world(**settings):
    world = a_world(loopback_only=False, read_tokens=(READ, ""), act_tokens=(ACT,), **settings)
    world.runs.add(a_running())
    a_build(world)
    return world


@pytest.mark.parametrize("path", READABLE)
@pytest.mark.parametrize(
    "value", [None, "Bearer wrong", "Bearer", "Bearer ", f"Basic {READ}", READ, f"Bearer {READ}x"]
)
def test_without_identity_nothing_is_read(path, value):
    answer = a_shared_world().client.get(path, headers={} if value is None else {"Authorization": value})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "push-r1" not in answer.text.replace(f'value="{path}"', "")


@pytest.mark.parametrize("path", READABLE)
@pytest.mark.parametrize("token", [READ, ACT])
def test_with_a_token_everything_is_read(path, token):
    assert a_shared_world().client.get(path, headers=bearer(token)).status_code == 200


@pytest.mark.parametrize("path", READABLE)
def test_anonymous_reading_is_a_setting(path):
    assert a_shared_world(anonymous_read=True).client.get(path).status_code == 200


@pytest.mark.parametrize("settings", [{}, {"anonymous_read": True}])
@pytest.mark.parametrize(("headers", "status"), [({}, 401), (bearer(READ), 403), (bearer("wrong"), 401)])
def test_only_a_token_that_may_act_acts(settings, headers, status):
    world = a_shared_world(**settings)
    assert world.client.post("/api/v1/runs/push-r1/retry", headers=headers).status_code == status
    assert world.runs.records["push-r1"].acts == ()
    assert world.client.post("/api/v1/runs/push-r1/retry", headers=bearer(ACT)).status_code == 202


def test_without_any_token_in_the_settings_nobody_reads_or_acts():
    world = a_world(loopback_only=False)
    assert world.client.get("/api/v1/runs", headers=bearer("")).status_code == 401
    assert world.client.post("/api/v1/runs/x/retry", headers=bearer("")).status_code == 401


def test_on_one_machine_act_tokens_are_asked_for_where_they_are_set():
    world = a_world(act_tokens=(ACT,))
    world.runs.add(a_running())
    assert world.client.get("/api/v1/runs").status_code == 200
    assert world.client.post("/api/v1/runs/push-r1/retry").status_code == 401
    assert world.client.post("/api/v1/runs/push-r1/retry", headers=bearer(ACT)).status_code == 202


@pytest.mark.parametrize("path", [*READABLE, "/metrics", "/static/bridge.css", "/nothing"])
def test_a_rebound_name_reads_nothing(path):
    world = a_world()
    world.runs.add(a_running())
    assert world.client.get(path, headers={"Host": "attacker.example"}).status_code == 421
