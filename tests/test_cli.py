"""The commands as a person types them, against a gateway over fakes; and the programs that some are replaced by."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
import yaml

from bridge.commands import run
from bridge.core.runs import Kind, Phase
from bridge.core.verdicts import Verdict
from bridge.web.logs import configure_logging
from tests.core.test_timelines import failed_run, going_run
from tests.fakes import some_event, some_run
from tests.served import Recorded, served
from tests.web.worlds import PUSH, SECRET, a_world

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("BRIDGE_") or name == "FORCE_COLOR":
            monkeypatch.delenv(name)


@pytest.fixture
def world(monkeypatch):
    world = a_world()
    configure_logging(stream=io.StringIO())
    with served(world.app) as url:
        monkeypatch.setenv("BRIDGE_URL", url)
        yield world
    structlog.reset_defaults()


@pytest.fixture
def recorded(monkeypatch):
    recorded = Recorded()
    with served(recorded) as url:
        monkeypatch.setenv("BRIDGE_URL", url)
        yield recorded


@pytest.fixture
def type_in(capsys):
    """Type a command; answers its exit code and what it wrote."""

    def type_in(*arguments):
        code = run(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return type_in


def typed_in_a_shell(*arguments, cwd=None, **environment):
    known = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    return subprocess.run(
        [sys.executable, "-P", "-c", "from bridge.cli import main; main()", *arguments],
        env={**known, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        cwd=cwd or ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_help_names_every_command_and_the_exit_codes(type_in):
    code, out, _ = type_in("--help")
    assert code == 0
    for command in (
        "local",
        "serve",
        "controller",
        "doctor",
        "render",
        "demo",
        "list",
        "get",
        "logs",
        "explain",
        "retry",
        "rerun",
        "cancel",
        "send",
    ):
        assert f"  {command} " in out
    assert "75 no usable answer" in " ".join(out.split())
    assert "brig run" in out
    assert type_in() == (0, out, "")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("serve", "a gateway of the cluster"),
        ("controller", "of several, one leads"),
        ("doctor", "2 something is, 75 the API server is away"),
    ],
)
def test_the_commands_of_a_cluster_say_what_they_do(type_in, command, words):
    code, out, _ = type_in(command, "--help")
    assert code == 0
    assert words in " ".join(out.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("nope",),
        ("doctor", "-o", "xml"),
        ("get",),
        ("list", "--limit", "x"),
        ("list", "--limit", "0"),
        ("list", "--sha", "nope"),
        ("list", "-o", "xml"),
        ("retry", "a/b"),
        ("local", "/nowhere"),
        ("render", "/nowhere", "-o", "/nowhere/else"),
        ("send", "push", "/nowhere/push.json"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_cannot_be_meant_is_told_in_one_line_and_exits_1(type_in, arguments):
    code, out, err = type_in(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("bridgectl: ")
    assert err.count("\n") == 1


def test_a_wrong_setting_is_told_by_its_variable(type_in, monkeypatch):
    monkeypatch.setenv("BRIDGE_URL", "nowhere")
    code, _, err = type_in("list")
    assert code == 1
    assert "BRIDGE_URL" in err


def test_nobody_listening_exits_75(type_in):
    code, _, err = type_in("list", "--url", "http://127.0.0.1:1")
    assert code == 75
    assert err.startswith("bridgectl: listing runs: no answer from http://127.0.0.1:1")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["get", "explain", "logs", "retry", "rerun", "cancel"])
def test_a_run_that_is_not_there_exits_4(world, type_in, command):
    code, out, err = type_in(command, "push-r9")
    assert (code, out) == (4, "")
    assert "push-r9" in err
    assert err.count("\n") == 1


def test_the_token_of_the_environment_is_sent(recorded, type_in, monkeypatch):
    monkeypatch.setenv("BRIDGE_TOKEN", "the-token")
    recorded.answer("/api/v1/runs", {"runs": []})
    code, out, err = type_in("list")
    assert (code, out, err) == (0, "", "no runs\n")
    assert recorded.asked[0].headers["authorization"] == "Bearer the-token"


def test_a_gateway_that_wants_a_token_says_how_to_give_one(recorded, type_in):
    recorded.problem("/api/v1/runs", "401 Unauthorized", "reading needs a Bearer token of this gateway")
    code, _, err = type_in("list")
    assert code == 1
    assert "BRIDGE_TOKEN" in err


def test_runs_are_listed_as_a_table_as_json_and_as_yaml(world, type_in):
    world.runs.add(failed_run())
    code, out, _ = type_in("list", "--project", "acme/widgets")
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["push-r1", "acme/widgets"]
    assert "bridge/push/push" in type_in("list", "-o", "wide")[1]
    assert json.loads(type_in("list", "-o", "json")[1])["runs"][0]["id"] == "push-r1"
    assert yaml.safe_load(type_in("list", "-o", "yaml")[1])["runs"][0]["verdict"] == "failed"
    assert type_in("list", "--open")[1] == ""


def test_runs_are_listed_by_the_beginning_of_a_commit(world, type_in):
    world.runs.add(failed_run())
    assert "push-r1" in type_in("list", "--sha", "ccccccc")[1]
    assert "push-r1" in type_in("list", "--sha", "c" * 40)[1]
    assert type_in("list", "--sha", "ccccccd")[1] == ""


def test_a_run_is_shown_with_what_to_type_next(world, type_in):
    world.runs.add(failed_run())
    code, out, _ = type_in("get", "push-r1")
    assert code == 0
    assert "step test failed (build 2): exit 1" in out
    assert "bridgectl retry push-r1" in out
    assert json.loads(type_in("get", "push-r1", "-o", "json")[1])["id"] == "push-r1"
    assert yaml.safe_load(type_in("get", "push-r1", "-o", "yaml")[1])["steps"][1]["name"] == "test"


def test_foreign_control_characters_reach_the_terminal_in_no_form(world, type_in):
    evil = "\x1b[2Jtitle\u202e\x9b1m"
    world.runs.add(some_run(event=some_event(short_title=evil, branch=evil)))
    for arguments in (
        ("list",),
        ("list", "-o", "json"),
        ("list", "-o", "yaml"),
        ("get", "push-r1"),
        ("explain", "push-r1"),
    ):
        out = type_in(*arguments)[1]
        assert out.replace("\n", "").isprintable()


def test_watching_a_run_that_failed_exits_2_and_tells_what_happened(world, type_in):
    world.runs.add(failed_run())
    code, out, _ = type_in("get", "push-r1", "--watch")
    assert code == 2
    assert "attempt 1 ended: failed" in out
    code, out, _ = type_in("get", "push-r1", "--watch", "-o", "json")
    assert code == 2
    assert json.loads(out)["verdict"] == "failed"


def test_watching_goes_on_until_the_run_is_closed(recorded, type_in):
    going = {"id": "push-r1", "phase": "running", "timeline": [{"at": None, "what": "accepted"}]}
    ended = {
        **going,
        "phase": "closed",
        "verdict": "succeeded",
        "timeline": [*going["timeline"], {"at": None, "what": "done"}],
    }
    recorded.answer("/api/v1/runs/push-r1", going).answer("/api/v1/runs/push-r1", ended)
    code, out, _ = type_in("get", "push-r1", "-w")
    assert code == 0
    assert [line.strip() for line in out.splitlines()[:2]] == ["accepted", "done"]


def test_a_run_is_explained_in_order_with_what_it_waits_for(world, type_in):
    world.runs.add(going_run())
    code, out, _ = type_in("explain", "push-r1")
    assert code == 0
    assert out.index("accepted push") < out.index("attempt 1 begun") < out.index("Now: it waits for its next step")
    assert "  bridgectl cancel push-r1" in out


def test_an_explained_run_that_is_closed_says_so(world, type_in):
    world.runs.add(failed_run())
    assert "Now: it is closed, failed" in type_in("explain", "push-r1")[1]


def test_a_commit_is_explained_with_what_every_pipeline_says(world, type_in):
    world.runs.add(failed_run())
    code, out, _ = type_in("explain", "ccccccc")
    assert code == 0
    assert "  pipeline push wants it" in out
    assert "Run push-r1:" in out
    assert json.loads(type_in("explain", "ccccccc", "-o", "json")[1])["events"][0]["runs"][0]["id"] == "push-r1"


def test_a_delivery_that_nobody_wanted_is_explained_by_its_attempts_and_the_reason(recorded, type_in):
    event = {
        "delivery": "guid-1",
        "event": "push",
        "project": "acme/widgets",
        "sha": "c" * 40,
        "received": [{"at": "2026-11-24T15:04:05.678Z", "log": "webhook 1", "status": 0, "what": "lost"}],
        "matched": [{"pipeline": "p", "wants": False, "why": "pipeline p wants tag, not \x1b[2Jpush"}],
        "ignored": "pipeline p wants tag, not push",
        "runs": [],
    }
    recorded.answer("/api/v1/explain", {"about": "guid-1", "events": [event], "notes": ["acme/b: not looked at"]})
    code, out, err = type_in("explain", "guid-1", "--project", "acme/widgets")
    assert code == 0
    assert "nothing   lost" in out
    assert "  pipeline p wants tag, not push" in out
    assert "Now: nothing runs for it: pipeline p wants tag, not push" in out
    assert err == "bridgectl: acme/b: not looked at\n"


def test_a_list_is_narrowed_down_by_branch_verdict_and_words(world, type_in):
    world.runs.add(failed_run())
    assert "push-r1" in type_in("list", "--branch", "main", "--verdict", "failed", "--search", "ACME push")[1]
    assert type_in("list", "--branch", "next")[1] == ""
    assert type_in("list", "--verdict", "succeeded")[1] == ""
    assert type_in("list", "--verdict", "bad")[0] == 1


def test_a_run_without_builds_has_no_logs(world, type_in):
    world.runs.add(failed_run())
    assert type_in("logs", "push-r1") == (0, "", "")


def test_a_failed_step_is_retried_alone(world, type_in):
    world.runs.add(failed_run())
    code, out, _ = type_in("retry", "push-r1", "--only", "test")
    assert (code, out) == (0, "push-r1: retry: attempt 2 begins now\n")
    [act] = world.runs.records["push-r1"].acts
    assert (act.kind, act.only, act.source) == (Kind.RETRY, ("test",), "cli")


def test_all_failed_runs_of_a_commit_are_retried(world, type_in):
    world.runs.add(failed_run())
    world.runs.add(some_run("push-r2", context="c2", phase=Phase.CLOSED, verdict=Verdict.ERROR))
    world.runs.add(some_run("push-r3", context="c3", phase=Phase.CLOSED, verdict=Verdict.SUCCEEDED))
    code, out, _ = type_in("retry", "ccccccc")
    assert code == 0
    assert sorted(line.split(":")[0] for line in out.splitlines()) == ["push-r1", "push-r2"]


def test_the_runs_of_a_pull_request_are_cancelled(world, type_in):
    world.runs.add(some_run("pull-r1", event=some_event(pull_request=7)))
    assert type_in("cancel", "acme/widgets#7")[:2] == (0, "pull-r1: it will be cancelled\n")
    assert world.runs.records["pull-r1"].acts[0].kind is Kind.CANCEL


def test_nothing_to_do_is_no_error_and_says_so(world, type_in):
    world.runs.add(failed_run())
    type_in("rerun", "push-r1")
    code, out, _ = type_in("rerun", "push-r1")
    assert code == 0
    assert "waits already" in out


def test_a_run_that_refuses_does_not_keep_the_others_from_being_asked(world, type_in):
    world.runs.add(failed_run())
    world.runs.add(some_run("push-r2", context="c2", phase=Phase.CLOSED, verdict=Verdict.ERROR))
    code, out, err = type_in("retry", "c" * 40, "--only", "test")
    assert code == 1
    assert out.startswith("push-r1: retry")
    assert "push-r2 has no step test" in err


def test_a_delivery_is_sent_signed_and_only_once(world, type_in, tmp_path, monkeypatch):
    (tmp_path / "push.json").write_bytes(PUSH)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    sent = ("send", "push", str(tmp_path / "push.json"), "--delivery", "d-7")
    code, out, _ = type_in(*sent, "--secret-file", str(tmp_path / "secret"))
    assert code == 0
    assert json.loads(out)["runs"][0]["duplicate"] is False
    monkeypatch.setenv("BRIDGE_SECRET", SECRET)
    assert json.loads(type_in(*sent)[1])["runs"][0]["duplicate"] is True
    assert len(world.runs.records) == 1


def test_a_recorded_payload_is_sent_for_another_project(world, type_in, tmp_path, monkeypatch):
    foreign = json.loads(PUSH)
    foreign["repository"]["full_name"] = "Codertocat/Hello-World"
    monkeypatch.setenv("BRIDGE_SECRET", SECRET)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(foreign).encode())))
    assert type_in("send", "push", "-", "--project", "acme/widgets")[0] == 0
    assert [one.event.project for one in world.runs.records.values()] == ["acme/widgets"]


def test_a_delivery_that_is_refused_exits_1_and_one_that_was_not_stored_75(recorded, type_in, tmp_path):
    (tmp_path / "push.json").write_bytes(PUSH)
    recorded.problem("/events/github", "401 Unauthorized", "no active secret")
    recorded.problem("/events/github", "503 Service Unavailable", "not now")
    code, _, err = type_in("send", "push", str(tmp_path / "push.json"))
    assert code == 1
    assert "401: no active secret" in err
    assert type_in("send", "push", str(tmp_path / "push.json"))[0] == 75


def test_a_payload_without_a_repository_cannot_be_sent_for_another_project(type_in, tmp_path):
    (tmp_path / "odd.json").write_text("[]")
    code, _, err = type_in("send", "push", str(tmp_path / "odd.json"), "--project", "acme/widgets")
    assert code == 1
    assert "--project" in err


def test_pipelines_are_rendered_into_a_folder(type_in, tmp_path):
    code, out, _ = type_in(
        "render", str(ROOT / "bridge/local/default_pipelines"), "-o", str(tmp_path), "--namespace", "ci"
    )
    assert code == 0
    [written] = [Path(line) for line in out.splitlines()]
    assert yaml.safe_load(written.read_text())["metadata"]["namespace"] == "ci"


def test_brig_run_is_a_program_of_its_own_also_beside_a_folder_of_our_name(tmp_path):
    (tmp_path / "bridge").mkdir()
    (tmp_path / "bridge" / "__init__.py").write_text("raise SystemExit('the wrong bridge')")
    done = typed_in_a_shell("brig", "run", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: brig run")


def test_brig_run_starts_without_what_only_other_commands_need():
    heavy = ("typer", "rich", "flask", "pydantic", "pydantic_settings", "hera", "urllib3")
    probe = (
        "import os, sys; os.execve = lambda *a: None; sys.argv = ['bridgectl', 'brig', 'run']; import bridge.cli;"
        f" bridge.cli._replace('bridge.step', []); print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr


def test_exit_without_a_run_does_nothing_and_succeeds():
    done = typed_in_a_shell("exit", BRIDGE_RUN="none")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_command_in_a_shell_exits_with_its_code():
    done = typed_in_a_shell("list", "--url", "http://127.0.0.1:1")
    assert done.returncode == 75
    assert "Traceback" not in done.stderr
