import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.events import Event, Ignored, Revision, fields, github
from bridge.errors import TooLarge, UnreadableEvent

SHA = "b" * 40
REPOSITORY = {"full_name": "acme/widgets", "clone_url": "https://github.com/acme/widgets.git"}
COMMON: dict[str, Any] = {"repository": REPOSITORY, "sender": {"login": "octocat"}}

# docs.github.com, webhook events and payloads: every action of pull_request.
PULL_REQUEST_ACTIONS = (
    "assigned", "auto_merge_disabled", "auto_merge_enabled", "closed", "converted_to_draft", "demilestoned", "dequeued", "edited",
    "enqueued", "labeled", "locked", "milestoned", "opened", "ready_for_review", "reopened", "review_request_removed",
    "review_requested", "synchronize", "unassigned", "unlabeled", "unlocked",
)  # fmt: skip


def headers(event: str, **others: str) -> dict[str, str]:
    given = {
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "Content-Type": "application/json",
    }
    return given | {name.replace("_", "-"): value for name, value in others.items()}


def body(document: dict[str, Any]) -> bytes:
    return json.dumps(COMMON | document).encode()


def read(event: str, document: dict[str, Any], **options: Any) -> Event | Ignored:
    return github.read(headers(event), body(document), **options)


def event_of(event: str, document: dict[str, Any], **options: Any) -> Event:
    found = read(event, document, **options)
    assert isinstance(found, Event), found
    return found


def pushed(**changes: Any) -> dict[str, Any]:
    return {"ref": "refs/heads/main", "after": SHA, "deleted": False, "head_commit": {"id": SHA}} | changes


def pull(action: str = "opened", *, head_repo: Any = REPOSITORY, **changes: Any) -> dict[str, Any]:
    pull_request = {
        "number": 7,
        "title": "Add a widget",
        "author_association": "NONE",
        "head": {"sha": SHA, "ref": "topic", "repo": head_repo},
        "base": {"ref": "main", "repo": REPOSITORY},
    }
    return {"action": action, "number": 7, "pull_request": pull_request | changes}


def commented(action: str = "created", *, association: str = "MEMBER", on_pull: bool = True) -> dict[str, Any]:
    issue: dict[str, Any] = {"number": 7, "title": "Add a widget"}
    if on_pull:
        issue["pull_request"] = {"url": "https://api.github.com/repos/acme/widgets/pulls/7"}
    return {"action": action, "issue": issue, "comment": {"author_association": association, "body": "/retry"}}


def test_a_push_to_a_branch_is_an_event_of_its_head_commit():
    document = pushed()
    assert event_of("push", document) == Event(
        provider="github",
        type="push",
        project="acme/widgets",
        delivery="72d3162e-cc78-11e3-81ab-4c9367dc0958",
        revision=Revision(commit=SHA, ref="refs/heads/main"),
        payload=body(document),
        clone_url="https://github.com/acme/widgets.git",
        short_title="branch: main",
        long_title="branch: main",
        branch="main",
        sender="octocat",
    )


def test_when_it_happened_is_what_a_delivery_says_of_push_and_pull_request():
    repository = {**REPOSITORY, "pushed_at": 1_700_000_000}
    assert event_of("push", pushed(repository=repository)).happened == 1_700_000_000
    assert event_of("pull_request", pull(updated_at="2023-11-14T22:13:20Z")).happened == 1_700_000_000
    assert event_of("pull_request", pull(updated_at={"nonsense": 1})).happened == 0


def test_a_push_of_an_annotated_tag_has_the_commit_behind_it():
    event = event_of("push", pushed(ref="refs/tags/v1.0", after="c" * 40))
    assert (event.revision, event.tag, event.branch) == (Revision(commit=SHA, ref="refs/tags/v1.0"), "v1.0", "")
    assert event.short_title == "tag: v1.0"


def merge_group(action, **more):
    group = {
        "head_sha": SHA,
        "head_ref": "refs/heads/gh-readonly-queue/main/pr-7-abc",
        "base_ref": "refs/heads/main",
    }
    return {"action": action, "merge_group": group, **more}


def test_a_push_without_a_head_commit_has_the_commit_after_it():
    assert event_of("push", pushed(head_commit=None, after="c" * 40)).revision.commit == "c" * 40


def test_a_deleted_branch_is_ignored_though_it_has_no_commit():
    assert read("push", pushed(deleted=True, head_commit=None, after="0" * 40)) == Ignored(
        "a branch or tag was deleted"
    )


@pytest.mark.parametrize(
    ("event", "document"),
    [
        ("create", {"ref": "gh-readonly-queue/main/pr-7-abc", "ref_type": "branch"}),
        ("merge_group", merge_group("destroyed", reason="dequeued")),
    ],
    ids=["create", "merge_group"],
)
def test_what_the_merge_queue_tells_besides_is_ignored(event, document):
    answered = read(event, document)
    assert isinstance(answered, Ignored)
    assert "merge" in answered.reason


def test_a_merge_group_is_its_own_commit_and_is_of_its_base_branch():
    event = event_of("merge_group", merge_group("checks_requested"))
    assert event.names == ("merge_group:checks_requested", "merge_group")
    assert event.revision == Revision(commit=SHA, ref="refs/heads/gh-readonly-queue/main/pr-7-abc")
    assert (event.branch, event.short_title, event.pull_request) == ("main", "merge queue: main", None)


def test_a_push_of_the_merge_queue_is_a_push_of_its_branch():
    event = event_of("push", pushed(ref="refs/heads/gh-readonly-queue/main/pr-7-abc"))
    assert (event.type, event.branch) == ("push", "gh-readonly-queue/main/pr-7-abc")


@pytest.mark.parametrize("action", ["created", "completed", "rerequested", "requested_action"])
def test_a_check_that_stands_for_a_run_is_an_echo_whatever_is_told_of_it(action):
    suite = {"head_sha": SHA, "head_branch": "main"}
    for app in ({"id": 1}, {}):
        ours = {"external_id": "push-0123456789abcdefghjk/2", "check_suite": suite, "app": app}
        assert isinstance(read("check_run", {"action": action, "check_run": ours}), Ignored)
    theirs = {"external_id": "push/2", "check_suite": suite, "app": {"id": 1}}
    assert isinstance(read("check_run", {"action": action, "check_run": theirs}), Event)


@pytest.mark.parametrize("known_as", [4711, "Iv23liABC"])
def test_our_app_is_known_by_its_id_and_by_its_client_id(known_as):
    app = {"id": 4711, "client_id": "Iv23liABC"}
    suite = {"head_sha": SHA, "head_branch": "main", "app": app}
    told = {"action": "completed", "check_suite": suite}
    assert isinstance(read("check_suite", told, app_id=known_as), Ignored)
    assert isinstance(read("check_suite", told, app_id="Iv-other"), Event)
    assert isinstance(read("check_suite", {**told, "action": "requested"}, app_id=known_as), Event)


def test_the_merge_queue_wants_all_of_its_commits():
    broken = merge_group("checks_requested")
    del broken["merge_group"]["head_sha"]
    with pytest.raises(UnreadableEvent, match=r"merge_group\.head_sha"):
        read("merge_group", broken)


@pytest.mark.parametrize("action", PULL_REQUEST_ACTIONS)
def test_every_action_of_a_pull_request_is_one_event_with_both_names(action):
    document = pull(action)
    event = event_of("pull_request", document)
    assert event.names == (f"pull_request:{action}", "pull_request")
    assert event.revision == Revision(commit=SHA, ref="refs/pull/7/head")
    assert (event.branch, event.pull_request, event.fork_author) == ("main", 7, "")
    assert (event.short_title, event.long_title) == ("PR #7", "PR #7: Add a widget")
    assert event.payload == body(document)


@pytest.mark.parametrize(
    "head_repo", [{"full_name": "mallory/widgets"}, None], ids=["another repository", "a deleted one"]
)
@pytest.mark.parametrize("event", ["pull_request", "pull_request_review", "pull_request_review_comment"])
def test_a_pull_request_from_a_fork_names_its_authors_association(event, head_repo):
    assert event_of(event, pull(head_repo=head_repo)).fork_author == "NONE"
    assert event_of(event, pull(head_repo=head_repo, author_association="MEMBER")).fork_author == "MEMBER"


def test_a_fork_whose_association_is_missing_is_nobodys():
    document = pull(head_repo=None)
    del document["pull_request"]["author_association"]
    assert event_of("pull_request", document).fork_author == "NONE"


@pytest.mark.parametrize(
    ("event", "document", "type_", "revision"),
    [
        ("commit_comment", {"action": "created", "comment": {"commit_id": SHA}}, "commit_comment:created", Revision(commit=SHA)),
        ("create", {"ref": "topic", "ref_type": "branch"}, "create", Revision(ref="topic")),
        ("release", {"action": "published", "release": {"tag_name": "v1"}}, "release:published", Revision(ref="v1")),
        ("deployment", {"action": "created", "deployment": {"sha": SHA, "ref": "main"}}, "deployment", Revision(commit=SHA, ref="main")),
        ("deployment_status", {"action": "created", "deployment": {"sha": SHA, "ref": "main"}}, "deployment_status", Revision(commit=SHA, ref="main")),
        ("status", {"sha": SHA, "context": "ci/other", "state": "success"}, "status", Revision(commit=SHA)),
    ],
)  # fmt: skip
def test_other_events_have_the_revision_that_brigade_gives_them_and_the_raw_payload(
    event, document, type_, revision
):
    found = event_of(event, document)
    assert (found.type, found.revision, found.payload) == (type_, revision, body(document))
    assert (found.short_title, found.long_title) == ("", "")


@pytest.mark.parametrize("branch", ["topic", None])
@pytest.mark.parametrize("event", ["check_suite", "check_run"])
def test_a_check_is_wrapped_with_an_empty_token(event, branch):
    suite = {"head_sha": SHA, "head_branch": branch, "app": {"id": 5}}
    document = {"action": "rerequested", "check_suite": suite, "check_run": {"check_suite": suite}}
    found = event_of(event, document)
    assert (found.type, found.revision) == (f"{event}:rerequested", Revision(commit=SHA, ref=branch or ""))
    assert json.loads(found.payload) == {
        "type": event, "token": "", "tokenExpires": "0001-01-01T00:00:00Z", "body": COMMON | document, "commit": "", "branch": "",
    }  # fmt: skip


@pytest.mark.parametrize("action", ["created", "edited"])
def test_a_comment_on_a_pull_request_by_somebody_allowed_is_wrapped_and_has_its_ref(action):
    event = event_of("issue_comment", commented(action))
    assert (event.type, event.revision, event.pull_request) == (
        f"issue_comment:{action}",
        Revision(ref="refs/pull/7/head"),
        7,
    )
    wrapper = json.loads(event.payload)
    assert (wrapper["type"], wrapper["token"], wrapper["branch"]) == ("issue_comment", "", "refs/pull/7/head")
    assert wrapper["body"] == COMMON | commented(action)


@pytest.mark.parametrize(
    "document",
    [commented(association="NONE"), commented("deleted"), commented(on_pull=False)],
    ids=["a stranger", "deleted", "an issue"],
)
def test_other_comments_carry_nothing_and_point_at_master(document):
    event = event_of("issue_comment", document)
    assert (event.revision, event.payload) == (Revision(ref="refs/heads/master"), b"")
    assert event.long_title == "PR #7: Add a widget"


def test_whose_comments_may_act_is_the_projects_choice():
    assert event_of("issue_comment", commented(association="CONTRIBUTOR"), allowed_authors=["CONTRIBUTOR"]).payload
    assert not event_of("issue_comment", commented(association="MEMBER"), allowed_authors=["OWNER"]).payload


def test_a_ping_is_answered_also_without_a_repository():
    assert github.read(headers("ping"), b'{"zen": "Keep it logically awesome."}') == Ignored("pong")


@pytest.mark.parametrize("event", ["star", "installation", "pull_request_review_thread", "some_new_event"])
def test_events_that_brigade_does_not_know_are_ignored_by_name(event):
    answered = github.read(headers(event), b"{}")
    assert isinstance(answered, Ignored)
    assert event in answered.reason


@pytest.mark.parametrize(
    ("event", "document"),
    [
        ("status", {"sha": SHA, "context": "bridge/pull-request/pull_request"}),
        ("status", {"sha": SHA, "context": "ci/ours"}),
        ("check_suite", {"action": "completed", "check_suite": {"head_sha": SHA, "app": {"id": 5}}}),
        ("check_run", {"action": "created", "check_run": {"app": {"id": 5}, "check_suite": {"head_sha": SHA}}}),
        ("check_run", {"action": "created", "check_run": {"check_suite": {"head_sha": SHA, "app": {"id": 5}}}}),
        ("issue_comment", {"action": "created", "comment": {"performed_via_github_app": {"id": 5}}}),
    ],
)
def test_what_bridge_caused_itself_is_ignored(event, document):
    answered = read(event, document, app_id=5, own_contexts=["ci/ours"])
    assert isinstance(answered, Ignored)
    assert "bridge itself" in answered.reason


@pytest.mark.parametrize(
    ("event", "action"),
    [("check_suite", "requested"), ("check_suite", "rerequested"), ("check_run", "rerequested")],
)
def test_a_check_that_our_own_app_is_asked_for_is_an_event(event, action):
    suite = {"head_sha": SHA, "app": {"id": 5}}
    document = {
        "action": action,
        event: suite if event == "check_suite" else {"app": {"id": 5}, "check_suite": suite},
    }
    assert event_of(event, document, app_id=5).type == f"{event}:{action}"


def test_statuses_and_checks_of_others_are_events():
    assert event_of("status", {"sha": SHA, "context": "ci/ours"}, app_id=5)
    assert event_of("status", {"sha": SHA, "context": "bridges/x"}, app_id=5)
    assert event_of(
        "check_suite", {"action": "completed", "check_suite": {"head_sha": SHA, "app": {"id": 6}}}, app_id=5
    )
    assert event_of("check_suite", {"action": "completed", "check_suite": {"head_sha": SHA, "app": None}})


@pytest.mark.parametrize(
    ("event", "document", "needed"),
    [
        ("push", pushed(), False),
        ("pull_request", pull(), False),
        ("pull_request_review", pull("submitted"), False),
        ("pull_request_review_comment", pull("created"), True),
        ("status", {"sha": SHA, "context": "ci/other"}, True),
        ("check_suite", {"action": "requested", "check_suite": {"head_sha": SHA}}, True),
        ("issue_comment", commented(), True),
        ("commit_comment", {"action": "created", "comment": {"commit_id": SHA}}, True),
    ],
)
def test_statuses_checks_and_comments_have_to_be_named_by_a_pipeline(event, document, needed):
    assert github.needs_naming(event_of(event, document)) is needed


def test_an_event_of_another_provider_never_has_to_be_named():
    assert not github.needs_naming(Event(provider="GenericWebhook", type="status", project="a/b", delivery="1"))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"X-GitHub-Event": ""}, "X-GitHub-Event"),
        ({"X-GitHub-Event": "push\n"}, "X-GitHub-Event"),
        ({"X-GitHub-Event": "../push"}, "X-GitHub-Event"),
        ({"X-GitHub-Delivery": ""}, "X-GitHub-Delivery"),
        ({"X-GitHub-Delivery": "a b"}, "X-GitHub-Delivery"),
        ({"X-GitHub-Delivery": "a" * 101}, "X-GitHub-Delivery"),
        (
            {"Content-Type": "application/x-www-form-urlencoded"},
            "set the webhook's content type to application/json",
        ),
        ({"Content-Type": ""}, "set the webhook's content type to application/json"),
    ],
)
def test_a_delivery_with_a_wrong_header_is_unreadable(changed, reason):
    with pytest.raises(UnreadableEvent, match=reason):
        github.read(headers("push") | changed, body(pushed()))


def test_headers_are_found_in_any_case_and_missed_with_a_reason():
    assert github.read({name.lower(): value for name, value in headers("push").items()}, body(pushed()))
    with pytest.raises(UnreadableEvent, match="X-GitHub-Event"):
        github.read({}, body(pushed()))


@pytest.mark.parametrize(
    ("event", "document", "field"),
    [
        ("push", pushed(ref="refs/heads/a\nb"), "ref"),
        ("push", pushed(ref="--upload-pack=x"), "ref"),
        ("push", pushed(ref=None), "ref"),
        ("push", pushed(head_commit={"id": "main"}), "head_commit.id"),
        ("push", pushed(head_commit=None, after="0" * 40), "after"),
        ("push", pushed(deleted="no"), "deleted"),
        ("push", pushed(repository={"full_name": "../etc"}), "repository.full_name"),
        ("push", pushed(repository={"full_name": "acme/widgets\n"}), "repository.full_name"),
        ("push", pushed(repository=None), "repository"),
        ("pull_request", pull(number="7"), "pull_request.number"),
        ("pull_request", pull(number=True), "pull_request.number"),
        ("pull_request", pull(number=-7), "pull_request.number"),
        ("pull_request", pull(number=7.0), "pull_request.number"),
        ("pull_request", pull(head={"sha": SHA[:7]}), "pull_request.head.sha"),
        ("pull_request", pull(author_association="{{x}}"), "pull_request.author_association"),
        ("pull_request", pull("opened:extra"), "action"),
        ("pull_request", pull("opened\n"), "action"),
        ("pull_request", {"action": "opened"}, "pull_request"),
        ("release", {"action": "published", "release": {"tag_name": "a b"}}, "release.tag_name"),
        ("check_run", {"action": "created", "check_run": []}, "check_run"),
    ],
)
def test_a_hostile_value_is_unreadable_and_only_its_field_is_named(event, document, field):
    with pytest.raises(UnreadableEvent, match=f"reading GitHub's {event} payload: {field}: "):
        read(event, document)


def test_only_https_is_taken_for_a_clone_url():
    insecure = REPOSITORY | {"clone_url": "http://github.com/acme/widgets.git"}
    assert event_of("push", pushed(repository=insecure)).clone_url == ""


def test_titles_are_cut_and_cleaned():
    event = event_of("pull_request", pull(title="\x1b[2J" + "x" * 500))
    assert len(event.long_title) == 200
    assert "\x1b" not in event.long_title
    assert event_of("pull_request", pull(title=None)).long_title == ""


def test_a_claim_is_the_project_or_nothing_or_unreadable():
    assert github.claimed_project(body({})) == "acme/widgets"
    assert github.claimed_project(b'{"zen": "x"}') == ""
    for unreadable in (
        b'{"repository": {"full_name": "../../x"}}',
        b'{"repository": {"full_name": 1}}',
        b"[",
        b"",
    ):
        with pytest.raises(UnreadableEvent):
            github.claimed_project(unreadable)
    with pytest.raises(TooLarge):
        github.claimed_project(b" " * 1_000_001)


# What a hostile sender would put into any field.
LEAVES = st.sampled_from(
    [None, True, 0, -1, 7, 2**60, 1.5, "", SHA, "0" * 40, "main", "refs/heads/main", "refs/tags/v1", "refs/heads/x\n", "--x",
     "acme/widgets", "../..", "NONE", "\x00", "x" * 1200, "\u202e", [], {}, [{}], {"id": SHA}, {"full_name": "a/b"}]
)  # fmt: skip
PATHS = st.sampled_from(
    ["ref", "after", "deleted", "head_commit", "head_commit.id", "repository", "repository.full_name", "repository.clone_url", "sender",
     "sender.login", "action", "pull_request", "pull_request.number", "pull_request.title", "pull_request.author_association",
     "pull_request.head", "pull_request.head.sha", "pull_request.head.repo", "pull_request.base", "pull_request.base.ref", "issue",
     "issue.number", "issue.title", "issue.pull_request", "comment", "comment.author_association", "comment.commit_id", "sha", "context",
     "ref_type", "release", "release.tag_name", "deployment", "deployment.sha", "deployment.ref", "check_suite", "check_suite.app",
     "check_suite.head_sha", "check_suite.head_branch", "check_run", "check_run.check_suite", "check_run.check_suite.head_sha"]
)  # fmt: skip
EVENTS = st.sampled_from([*github._READERS, "ping", "merge_group"])


def everything() -> dict[str, Any]:
    suite = {"head_sha": SHA, "head_branch": "topic", "app": {"id": 5}}
    members = pushed() | pull() | commented() | {"sha": SHA, "context": "ci/x", "ref_type": "branch"}
    members |= {"release": {"tag_name": "v1"}, "deployment": {"sha": SHA, "ref": "main"}, "check_suite": suite}
    members |= {
        "check_run": {"check_suite": suite, "app": {"id": 5}},
        "repository": dict(REPOSITORY),
        "sender": {"login": "octocat"},
    }
    members["comment"]["commit_id"] = SHA
    copied: dict[str, Any] = json.loads(json.dumps(members))
    return copied


def changed(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    at: Any = document
    for name in parents:
        at = at.get(name) if isinstance(at, dict) else None
    if isinstance(at, dict):
        # A copy: the same object at two places could hold itself.
        at[last] = copy.deepcopy(value)


@given(EVENTS, st.dictionaries(PATHS, LEAVES, max_size=3))
def test_whatever_a_payload_holds_it_is_an_event_with_valid_fields_or_unreadable(name, changes):
    document = everything()
    for path, value in changes.items():
        changed(document, path, value)
    sent = json.dumps(document).encode()
    try:
        event = github.read(headers(name), sent, app_id=6)
    except UnreadableEvent:
        return
    if isinstance(event, Ignored):
        assert event.reason
        return
    assert event.project == github.claimed_project(sent)
    assert fields.full_name(event.project)
    assert not event.revision.commit or fields.commit(event.revision.commit)
    assert not event.revision.ref or fields.ref(event.revision.ref)
    assert event.revision != Revision()
    assert event.type.partition(":")[0] == name
    assert event.type.replace(":", "").replace("_", "").isalnum()
    assert len(event.long_title) <= fields.LONGEST_TITLE
    assert event.long_title.isprintable()
    assert not event.clone_url or event.clone_url.startswith("https://")
    assert event.pull_request is None or event.pull_request > 0


@given(st.binary(max_size=60), st.dictionaries(st.sampled_from(list(headers(""))), st.text(max_size=20)))
def test_no_bytes_and_headers_raise_anything_but_unreadable(sent, given_headers):
    for read_it in (
        lambda: github.read(headers("push") | given_headers, sent),
        lambda: github.claimed_project(sent),
    ):
        with contextlib.suppress(UnreadableEvent):
            read_it()
