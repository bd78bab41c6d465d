import contextlib
import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.core import records
from bridge.core.events import Event, Revision
from bridge.core.runs import (
    Act,
    Attempt,
    Kind,
    NodePart,
    NodeState,
    Phase,
    Report,
    State,
    StepEnd,
    StepState,
    Told,
)
from bridge.core.verdicts import Verdict
from bridge.errors import Misconfigured, TooLarge

_lightly = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Half surrogate pairs included, which json.loads makes of a hostile title; it joins whole ones.
_texts = st.text(st.characters(), max_size=12).map(lambda text: json.loads(json.dumps(text)))
_numbers = st.floats(allow_nan=False, allow_infinity=False)
_whole = st.integers(-(10**25), 10**25)
_names = st.lists(_texts, max_size=3).map(tuple)

_events = st.builds(
    Event,
    provider=_texts,
    type=_texts,
    project=_texts,
    delivery=_texts,
    revision=st.builds(Revision, commit=_texts, ref=_texts),
    payload=st.binary(max_size=40),
    clone_url=_texts,
    short_title=_texts,
    long_title=_texts,
    branch=_texts,
    tag=_texts,
    pull_request=st.none() | _whole,
    fork_author=_texts,
    sender=_texts,
    happened=_numbers,
)
_reports = st.builds(Report, context=_texts, state=_texts, description=_texts, attempt=_whole)
_acts = st.builds(
    Act,
    kind=st.sampled_from(Kind),
    request=_texts,
    follows=_whole,
    who=_texts,
    source=_texts,
    at=_numbers,
    only=_names,
)
_attempts = st.builds(
    Attempt,
    n=_whole,
    kind=st.sampled_from(Kind),
    epoch=_whole,
    begun=_numbers,
    only=_names,
    steps=_names,
    timeout_seconds=_numbers,
    on_failure=_texts,
    on_success=_texts,
    exit_timeout_seconds=_numbers,
    exit_error=_texts,
    uid=_texts,
    submitted=st.none() | _numbers,
    rung=_whole,
    waits=_texts,
    ended=st.none() | _numbers,
    verdict=st.none() | st.sampled_from(Verdict),
    reason=_texts,
    finished=st.lists(
        st.builds(
            StepEnd, step=_texts, verdict=st.sampled_from(Verdict), at=_numbers, reason=_texts, build=_texts
        ),
        max_size=2,
    ).map(tuple),
)
_step_states = st.builds(StepState, succeeded=st.none() | _whole, highest=_whole, unhandled=st.booleans())
_states = st.builds(
    State,
    attempts=st.lists(_attempts, max_size=3).map(tuple),
    steps=st.dictionaries(st.tuples(_whole, _texts), _step_states, max_size=3),
    reported=st.none() | _reports,
    reported_to=_texts,
    report_given_up=st.none() | _reports,
    report_error=_texts,
    report_after=_numbers,
    report_failures=_whole,
    report_pending_after=_numbers,
    report_overwritten=_whole,
    report_unsure_until=_numbers,
    held=_texts,
    closings=st.dictionaries(_whole, _numbers, max_size=2),
    notified=st.dictionaries(
        _texts, st.builds(Told, upto=_whole, given_up=_whole, error=_texts, waits=st.booleans()), max_size=2
    ),
)


def _everything_changed(kind, /, **values):
    """A value in which no field is at its default, made from `values`; a new field fails here first."""
    missing = {one.name for one in dataclasses.fields(kind)} - set(values)
    assert not missing, f"write {missing} of {kind.__name__} into records.py and into this test"
    return kind(**values)


_REPORT = _everything_changed(Report, context="c", state="pending", description="d", attempt=2)
_WHOLE_EVENT = _everything_changed(
    Event,
    provider="github",
    type="pull_request:opened",
    project="acme/widgets",
    delivery="d1",
    revision=Revision("c0ffee", "refs/pull/7/head"),
    payload=b"{}",
    clone_url="https://git.example/acme/widgets.git",
    short_title="PR #7",
    long_title="PR #7: title",
    branch="main",
    tag="v1",
    pull_request=7,
    fork_author="NONE",
    sender="mona",
    happened=0.5,
)
_WHOLE_ACT = _everything_changed(
    Act, kind=Kind.RETRY, request="r", follows=1, who="mona", source="cli", at=1.5, only=("lint",)
)
_WHOLE_ATTEMPT = _everything_changed(
    Attempt,
    n=2,
    kind=Kind.RETRY,
    epoch=1,
    begun=1.5,
    only=("lint",),
    steps=("build", "lint"),
    native=("lint",),
    timeout_seconds=60.0,
    on_failure="build_failed",
    on_success="build_succeeded",
    exit_timeout_seconds=30.0,
    exit_error="there is no project",
    uid="u",
    submitted=2.5,
    rung=3,
    waits="the workflow is suspended",
    ended=4.5,
    verdict=Verdict.TIMED_OUT,
    reason="too slow",
    finished=(
        _everything_changed(
            StepEnd, step="lint", verdict=Verdict.FAILED, at=3.5, reason="exit code 1", build="b1"
        ),
    ),
)
_WHOLE_NODE = _everything_changed(
    NodeState, attempt=2, part=NodePart.FAILED, started=1.5, ended=2.5, reason="exit code 1"
)
_WHOLE_STATE = _everything_changed(
    State,
    attempts=(_WHOLE_ATTEMPT,),
    steps={(1, "lint"): _everything_changed(StepState, succeeded=2, highest=3, unhandled=True, node=_WHOLE_NODE)},
    reported=_REPORT,
    reported_to="board",
    report_given_up=_REPORT,
    report_error="503",
    report_after=9.5,
    report_failures=4,
    report_pending_after=10.5,
    report_overwritten=3,
    report_unsure_until=11.5,
    held="a fork's",
    closings={2: 5.5},
    notified={"ops": _everything_changed(Told, upto=3, given_up=1, error="it answered 400", waits=True)},
)


@_lightly
@given(_events)
def test_an_event_comes_back_without_its_payload(event):
    text = records.encode_event(event)
    assert text.isascii()
    assert records.decode_event(text) == event.without_payload()


@_lightly
@given(st.lists(_acts, max_size=4).map(tuple))
def test_acts_come_back(acts):
    assert records.decode_acts(records.encode_acts(acts)) == acts


@_lightly
@given(_states)
def test_a_state_comes_back(state):
    assert records.decode_state(records.encode_state(state)) == state


@_lightly
@given(st.binary(max_size=5000))
def test_a_payload_comes_back(payload):
    packed = records.pack_payload(payload)
    assert records.unpack_payload(packed) == payload
    assert packed == records.pack_payload(payload)


def test_no_field_is_forgotten():
    assert records.decode_event(records.encode_event(_WHOLE_EVENT)) == _WHOLE_EVENT.without_payload()
    assert records.decode_acts(records.encode_acts((_WHOLE_ACT,))) == (_WHOLE_ACT,)
    assert records.decode_state(records.encode_state(_WHOLE_STATE)) == _WHOLE_STATE


def test_the_wire_format_is_this_one():
    """Records of an older bridge must stay readable: a change here needs a reason and a way to read the old."""
    assert json.loads(records.encode_acts((_WHOLE_ACT,))) == {
        "schema": 1,
        "acts": [
            {
                "kind": "retry",
                "request": "r",
                "follows": 1,
                "who": "mona",
                "source": "cli",
                "at": 1.5,
                "only": ["lint"],
            }
        ],
    }
    report = {"context": "c", "state": "pending", "description": "d", "attempt": 2}
    assert json.loads(records.encode_state(_WHOLE_STATE)) == {
        "schema": 2,
        "attempts": [
            {
                "n": 2,
                "kind": "retry",
                "from": 1,
                "begun": 1.5,
                "only": ["lint"],
                "steps": ["build", "lint"],
                "native": ["lint"],
                "timeout_seconds": 60.0,
                "on_failure": "build_failed",
                "on_success": "build_succeeded",
                "exit_timeout_seconds": 30.0,
                "exit_error": "there is no project",
                "uid": "u",
                "submitted": 2.5,
                "rung": 3,
                "waits": "the workflow is suspended",
                "ended": 4.5,
                "verdict": "timed_out",
                "reason": "too slow",
                "finished": [
                    {"step": "lint", "verdict": "failed", "at": 3.5, "reason": "exit code 1", "build": "b1"}
                ],
            }
        ],
        "steps": [
            {
                "epoch": 1,
                "step": "lint",
                "succeeded": 2,
                "highest": 3,
                "unhandled": True,
                "node": {
                    "attempt": 2,
                    "part": "failed",
                    "started": 1.5,
                    "ended": 2.5,
                    "reason": "exit code 1",
                },
            }
        ],
        "reported": report,
        "reported_to": "board",
        "report_given_up": report,
        "report_error": "503",
        "report_after": 9.5,
        "report_failures": 4,
        "report_pending_after": 10.5,
        "report_overwritten": 3,
        "report_unsure_until": 11.5,
        "held": "a fork's",
        "closings": [{"attempt": 2, "at": 5.5}],
        "notified": [{"to": "ops", "upto": 3, "given_up": 1, "error": "it answered 400", "waits": True}],
    }
    assert json.loads(records.encode_event(Event("github", "push", "acme/widgets", "d1"))) == {
        "schema": 1,
        "provider": "github",
        "type": "push",
        "project": "acme/widgets",
        "delivery": "d1",
    }


@pytest.mark.parametrize(
    ("encoded", "decode"),
    [
        (records.encode_event(_WHOLE_EVENT), records.decode_event),
        (records.encode_acts((_WHOLE_ACT,)), records.decode_acts),
        (records.encode_state(_WHOLE_STATE), records.decode_state),
    ],
    ids=["event", "acts", "state"],
)
def test_keys_of_a_newer_bridge_are_ignored_but_not_a_newer_schema(encoded, decode):
    fields = json.loads(encoded)
    assert decode(json.dumps({**fields, "colour": "blue"})) == decode(encoded)
    with pytest.raises(Misconfigured, match="written by a newer bridge: left alone"):
        decode(json.dumps({**fields, "schema": 3}))


def test_what_an_older_bridge_reads_aright_is_written_in_its_schema_and_it_leaves_held_runs_alone():
    not_held = dataclasses.replace(_WHOLE_STATE, held="")
    assert json.loads(records.encode_state(not_held))["schema"] == 1
    assert json.loads(records.encode_state(_WHOLE_STATE))["schema"] == 2
    approval = dataclasses.replace(_WHOLE_ACT, kind=Kind.APPROVE)
    assert json.loads(records.encode_acts((_WHOLE_ACT,)))["schema"] == 1
    assert json.loads(records.encode_acts((_WHOLE_ACT, approval)))["schema"] == 2
    before = json.dumps({"schema": 1, "report_failures": 4})
    assert records.decode_state(before) == State(report_failures=4)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "state: it is no JSON"),
        ('{"schema":1,"attempts":', "state: it is no JSON"),
        ('{"schema":1,"report_after":NaN}', "state: it is no JSON"),
        ("[" * 100_000, "state: it is no JSON"),
        ("[]", "state: it is no JSON object"),
        ("{}", "state.schema: it is missing"),
        ('{"schema":true}', "state.schema: it is no whole number"),
        ('{"schema":1,"attempts":{}}', "state.attempts: it is no list"),
        ('{"schema":1,"attempts":[1]}', r"state.attempts\[0\]: it is no object"),
        ('{"schema":1,"attempts":[{"n":"1"}]}', r"state.attempts\[0\].n: it is no whole number"),
        ('{"schema":1,"attempts":[{"n":1,"kind":"x"}]}', r"state.attempts\[0\].kind: it is none of first, retry"),
        ('{"schema":1,"steps":[{"epoch":1,"step":"a","unhandled":1}]}', r"steps\[0\].unhandled: it is neither"),
        ('{"schema":1,"steps":[{"epoch":1}]}', r"steps\[0\].step: it is missing"),
        ('{"schema":1,"reported":"x"}', "state.reported: it is no object"),
        ('{"schema":1,"reported_to":1}', "state.reported_to: it is no text"),
        ('{"schema":1,"report_after":"1"}', "state.report_after: it is no number"),
        ('{"schema":1,"report_after":1' + "0" * 400 + "}", "state.report_after: it is too large"),
    ],
    ids=range(17),
)
def test_a_damaged_state_is_refused_by_the_field(text, complaint):
    with pytest.raises(Misconfigured, match=complaint):
        records.decode_state(text)


@_lightly
@given(st.text() | st.recursive(st.none() | st.booleans() | _numbers | _texts, st.lists).map(json.dumps))
def test_whatever_the_text_only_misconfigured_is_raised(text):
    for decode in (records.decode_event, records.decode_acts, records.decode_state):
        with pytest.raises(Misconfigured):
            decode(text)


@_lightly
@given(st.data())
def test_a_field_of_another_type_is_a_value_or_misconfigured(data):
    fields = json.loads(records.encode_state(_WHOLE_STATE))
    key = data.draw(st.sampled_from(sorted(fields)))
    fields[key] = data.draw(st.none() | st.booleans() | _whole | _texts | st.lists(_whole) | st.just({}))
    with contextlib.suppress(Misconfigured):
        records.decode_state(json.dumps(fields))


def test_phases_and_verdicts_of_labels_are_read():
    assert records.decode_phase("running") is Phase.RUNNING
    assert records.decode_verdict("timed_out") is Verdict.TIMED_OUT
    assert records.decode_verdict("") is None
    assert records.decode_verdict(None) is None
    with pytest.raises(Misconfigured, match=r"record.phase: it is none of accepted, running, closed"):
        records.decode_phase("asleep")
    with pytest.raises(Misconfigured, match=r"record.verdict: it is no text"):
        records.decode_verdict(1)


@pytest.mark.parametrize("damage", ["none", "cut", "swapped", "other"])
def test_a_damaged_payload_is_refused(damage):
    packed = records.pack_payload(b"payload " * 100)
    damaged = {
        "none": b"",
        "cut": packed[:-4],
        "swapped": packed[:20] + b"\xff" * 8 + packed[28:],
        "other": b"plain",
    }
    with pytest.raises(Misconfigured, match="payload"):
        records.unpack_payload(damaged[damage])


def test_a_payload_that_unpacks_to_too_much_is_refused():
    with pytest.raises(Misconfigured, match="too long"):
        records.unpack_payload(records.pack_payload(bytes(records.MAX_PAYLOAD_BYTES + 1)))


def test_what_no_secret_could_hold_is_too_large():
    records.check_size("e" * 10, b"p" * (records.MAX_RECORD_BYTES - 10))
    with pytest.raises(TooLarge, match="at most 921600 can be stored"):
        records.check_size("e" * 11, b"p" * (records.MAX_RECORD_BYTES - 10))


def test_the_digest_tells_every_field_apart_but_when_it_happened():
    digests = {records.digest(_WHOLE_EVENT)}
    for one in dataclasses.fields(Event):
        other = {"revision": Revision("c0ffee"), "payload": b"{ }", "pull_request": None}.get(one.name, "other")
        digests.add(records.digest(dataclasses.replace(_WHOLE_EVENT, **{one.name: other})))
    assert len(digests) == len(dataclasses.fields(Event))
    assert records.digest(dataclasses.replace(_WHOLE_EVENT, happened=99.0)) in digests
    assert records.digest(dataclasses.replace(_WHOLE_EVENT)) == records.digest(_WHOLE_EVENT)


def test_the_digest_stays_what_it_was():
    """Deliveries that older versions stored are recognised by it."""
    assert records.digest(_WHOLE_EVENT) == "1de4c77f43056f43625ba382b3268754796161e538504c51f24e2ed8ad8fbedc"


def test_reading_a_record_imports_nothing_heavy():
    heavy = "hera flask pydantic pydantic_settings rich typer yaml"
    code = f"import sys, bridge.core.records; print([m for m in '{heavy}'.split() if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
