import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.builds import Build, BuildPhase, Ending, Outcome
from bridge.core.checks import (
    COMPLETED,
    IN_PROGRESS,
    LONGEST_OUTPUT_BYTES,
    attempt_of,
    check_of,
    external_id,
)
from bridge.core.names import run_id
from bridge.core.reports import final_report, held_report, pending_report
from bridge.core.runs import Attempt, Kind, State, StepState
from bridge.core.verdicts import Verdict
from tests.fakes import some_run

BEGAN, ENDED = 1_700_000_000.0, 1_700_000_090.0
URL = "https://ci.example/runs/push-r1"


def attempt(n=1, **changes):
    known = {"n": n, "kind": Kind.FIRST, "epoch": 1, "begun": BEGAN, "steps": ("build", "unit-test")}
    return Attempt(**{**known, **changes})


def ended(verdict, reason="", **changes):
    return attempt(verdict=verdict, reason=reason, ended=ENDED, **changes)


def a_run(*attempts, **state):
    return some_run(state=State(attempts=attempts, **state))


def a_build(step, number=1, ending=Ending.FAILED, *, attempt=1, tail="", reason="the worker exited with code 1"):
    outcome = Outcome(ending, reason if ending is not Ending.SUCCEEDED else "", BEGAN + 65, tail)
    phase = BuildPhase.SUCCEEDED if ending is Ending.SUCCEEDED else BuildPhase.FAILED
    return Build(
        id=f"{step}{number}",
        run="push-r1",
        epoch=1,
        step=step,
        number=number,
        attempt=attempt,
        event=step,
        phase=phase,
        created=BEGAN,
        started=BEGAN + 5,
        ended=BEGAN + 65,
        outcome=outcome,
    )


def final(run, builds=(), **more):
    newest = run.attempt
    return check_of(run, final_report(run, newest, newest.verdict), builds, url=URL, **more)


def failed_with(log, **more):
    return final(a_run(ended(Verdict.FAILED, "step unit-test failed")), [a_build("unit-test", tail=log)], **more)


def fence_of(check):
    return re.search(r"^(`{3,})text\n(.*)\n\1$", check.text, re.DOTALL | re.MULTILINE)


def test_a_run_that_goes_on_is_in_progress():
    run = a_run(attempt())
    check = check_of(run, pending_report(run), url=URL)
    assert (check.name, check.external_id) == ("bridge/push/push", "push-r1/1")
    assert (check.status, check.conclusion, check.completed, check.text) == (IN_PROGRESS, "", None, "")
    assert check.started == BEGAN
    assert f"[push-r1]({URL})" in check.summary


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
def test_each_verdict_has_its_conclusion(verdict, conclusion):
    check = final(a_run(ended(verdict, "because")))
    assert (check.status, check.conclusion, check.completed) == (COMPLETED, conclusion, ENDED)
    assert "because" in check.title


def test_an_error_says_so_in_its_title():
    assert (
        final(a_run(ended(Verdict.ERROR, "the workflow cannot be run"))).title
        == "error: the workflow cannot be run"
    )


def test_nothing_to_do_is_neutral_and_something_is_not():
    nothing = StepState(unhandled=True)
    run = a_run(
        ended(Verdict.SUCCEEDED, "nothing to do"), steps={(1, "build"): nothing, (1, "unit-test"): nothing}
    )
    assert final(run).conclusion == "neutral"
    run = a_run(ended(Verdict.SUCCEEDED), steps={(1, "build"): nothing, (1, "unit-test"): StepState(succeeded=1)})
    assert final(run).conclusion == "success"


def test_what_waits_for_approval_is_for_a_person_to_act_on():
    run = some_run(state=State(held="from a fork by a stranger"))
    check = check_of(run, held_report(run), url=URL)
    assert (check.status, check.conclusion, check.external_id) == (COMPLETED, "action_required", "push-r1/0")
    assert "/ok-to-test" in check.title


def test_a_new_attempt_is_another_check_of_the_same_name():
    run = a_run(ended(Verdict.FAILED), attempt(2, kind=Kind.RETRY))
    check = check_of(run, pending_report(run))
    assert (check.name, check.external_id) == ("bridge/push/push", "push-r1/2")


def test_the_table_has_each_step_its_builds_and_how_long_the_newest_ran():
    builds = [
        a_build("build", ending=Ending.SUCCEEDED),
        a_build("unit-test"),
        a_build("unit-test", 2, attempt=2),
    ]
    run = a_run(ended(Verdict.FAILED), ended(Verdict.FAILED, n=2), steps={(1, "build"): StepState(succeeded=1)})
    lines = final(run, builds).summary.splitlines()
    assert "| <code>build</code> | succeeded | 1: succeeded (attempt 1) | 1m |" in lines
    assert "| <code>unit-test</code> | failed | 1: failed (attempt 1), 2: failed | 1m |" in lines


def test_the_end_of_the_failed_log_stands_in_a_fence():
    check = failed_with("one\ntwo")
    assert fence_of(check)[2] == "one\ntwo"
    assert "<code>unit-test</code>, build 1" in check.text


def test_a_whole_log_is_better_than_the_outcomes_end_of_it():
    assert fence_of(failed_with("the end", log_of=lambda _: "the whole log"))[2] == "the whole log"
    assert "Nothing of its log is left" in failed_with("").text


def test_steps_that_succeeded_show_no_log():
    builds = [a_build("build", tail="bad"), a_build("build", 2, Ending.SUCCEEDED, tail="good")]
    assert final(a_run(ended(Verdict.SUCCEEDED)), builds).text == ""


@pytest.mark.parametrize("ticks", [3, 4, 17])
def test_no_log_closes_its_fence(ticks):
    log = f"{'`' * ticks}\n# [a heading](http://evil.example) @everybody"
    found = fence_of(failed_with(log))
    assert found[2] == log
    assert len(found[1]) == ticks + 1


def test_what_a_build_says_is_no_markup():
    reason = "| a | b <img src=x> [x](http://evil.example) @acme/all #1 `x` \x1b[31m\nnext"
    summary = final(a_run(ended(Verdict.FAILED, reason))).summary
    shown = next(line for line in summary.splitlines() if line.startswith("<code>") and "evil" in line)
    inside = re.sub(r"&#\d+;", "", shown.removeprefix("<code>").removesuffix("</code>"))
    assert not set("|<>[]()@#`*_:.~!\\\n\x1b") & set(inside)


def test_secrets_are_in_no_part_of_a_check():
    secret, token = "the-projects-own-secret", "ghp_" + "a1B2" * 9
    run = a_run(ended(Verdict.FAILED, f"step failed: {secret} {token}"))
    builds = [a_build("build", reason=f"says {secret}", tail=f"{secret}\n{token}\nthe rest")]
    check = final(run, builds, secrets=[secret], log_of=lambda _: None)
    everything = check.title + check.summary + check.text
    assert secret not in everything
    assert secret.replace("-", "&#45;") not in everything
    assert token not in everything
    assert "the rest" in check.text


def test_a_link_that_could_end_its_own_brackets_is_no_link():
    run = a_run(attempt())
    for url in ("", "javascript:alert(1)", "https://a.example/) [x](https://b.example", 'https://a.example/"x'):
        assert "](" not in check_of(run, pending_report(run), url=url).summary


def test_github_takes_as_many_steps_as_there_can_be():
    steps = tuple(f"step-{'x' * 50}-{n}" for n in range(100))
    builds = [a_build(step, number) for step in steps for number in range(1, 8)]
    check = final(a_run(ended(Verdict.FAILED, "&" * 400, steps=steps)), builds, log_of=lambda _: "é`" * 200_000)
    assert len(check.summary.encode()) <= LONGEST_OUTPUT_BYTES
    assert len(check.text.encode()) <= LONGEST_OUTPUT_BYTES
    assert check.text.count("### ") == 5
    assert "Re-run" in check.summary


def test_a_log_of_65_535_bytes_is_cut_at_its_beginning_between_characters():
    check = failed_with("", log_of=lambda _: "äöü\n" * 30_000 + "the last line")
    assert LONGEST_OUTPUT_BYTES - 200 < len(check.text.encode()) <= LONGEST_OUTPUT_BYTES
    assert fence_of(check)[2].splitlines()[0] == "äöü"
    assert fence_of(check)[2].endswith("the last line")


@given(st.binary(max_size=400), st.text(alphabet="`~\n a", max_size=400))
def test_any_bytes_are_shown_within_one_fence(raw, ticks):
    log = raw.decode("utf-8", "replace") + ticks + "x"
    found = fence_of(failed_with("", log_of=lambda _: log))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", found[2])
    assert len(found[1]) > max(map(len, re.findall("`+", found[2])), default=0)


def test_an_external_id_is_known_again():
    run = run_id(project="acme/widgets", provider="github", pipeline="pull-request", delivery="d-1")
    assert attempt_of(external_id(run, 12)) == (run, 12)
    for others in ("", "42", "build/1", f"{run}/01", f"{run}", f"{run}/1/2", f"x{run}y/1", "a" * 1000):
        assert attempt_of(others) is None
