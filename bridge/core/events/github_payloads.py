"""What bridge reads of GitHub's webhook payloads; everything else in them is left alone.

Fields are strict: a number is no text, and a missing field that a revision needs makes the payload unreadable.
"""

from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from bridge.core.events import fields
from bridge.errors import UnreadableEvent

Commit = Annotated[str, AfterValidator(fields.commit)]
Ref = Annotated[str, AfterValidator(fields.ref)]
FullName = Annotated[str, AfterValidator(fields.full_name)]
Action = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,59}$")]
Number = Annotated[int, Field(gt=0, lt=2**53)]
Association = Annotated[str, StringConstraints(pattern=r"^[A-Z_]{1,60}$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Repository(_Part):
    """The repository that the delivery is about: for a pull request, the one it wants to change."""

    full_name: FullName
    clone_url: str = ""
    pushed_at: Any = None
    """A number in `push`, a text elsewhere."""


class _Sender(_Part):
    login: str = ""


class Delivery(_Part):
    """What every payload of an event that bridge knows has."""

    repository: Repository
    sender: _Sender | None = None


class _HeadCommit(_Part):
    id: Commit


class Push(Delivery):
    """`push`: also the deletion of a branch or tag, which has no commit."""

    ref: Ref
    deleted: bool = False
    after: str = ""
    head_commit: _HeadCommit | None = None


class _ForkOrNot(_Part):
    full_name: str


class _Head(_Part):
    sha: Commit
    repo: _ForkOrNot | None = None


class _Base(_Part):
    ref: Ref
    repo: _ForkOrNot


class _PullRequest(_Part):
    number: Number
    title: str | None = None
    updated_at: Any = None
    author_association: Association = "NONE"
    head: _Head
    base: _Base

    @property
    def is_from_a_fork(self) -> bool:
        """Whether its head lives elsewhere; a deleted fork has no repository any more."""
        return self.head.repo is None or self.head.repo.full_name != self.base.repo.full_name


class PullRequestDelivery(Delivery):
    """`pull_request`, and reviews of one and their comments."""

    action: Action
    pull_request: _PullRequest


class _IssueLinks(_Part):
    url: str = ""


class _Issue(_Part):
    number: Number
    title: str | None = None
    updated_at: Any = None
    pull_request: _IssueLinks | None = None


class _Comment(_Part):
    author_association: Association = "NONE"


class IssueComment(Delivery):
    """`issue_comment`: GitHub sends it for pull requests too, then with `issue.pull_request`."""

    action: Action
    issue: _Issue
    comment: _Comment


class _User(_Part):
    login: str = ""
    type: str = ""


class _Written(_Part):
    id: Number | None = None
    body: str = ""
    created_at: AwareDatetime | None = Field(None, strict=False)
    user: _User | None = None


class WrittenComment(_Part):
    """`issue_comment` once more, with what was written, by whom and when; a deleted user is null."""

    repository: Repository
    sender: _User | None = None
    issue: _Issue
    comment: _Written


class _CommittedComment(_Part):
    commit_id: Commit


class CommitComment(Delivery):
    """`commit_comment`."""

    action: Action
    comment: _CommittedComment


class Create(Delivery):
    """`create`, of a branch or a tag; its ref is bare."""

    ref: Ref
    ref_type: str


class _Release(_Part):
    tag_name: Ref


class Release(Delivery):
    """`release`; a draft's tag may not exist yet."""

    action: Action
    release: _Release


class _DeploymentTarget(_Part):
    sha: Commit
    ref: Ref


class Deployment(Delivery):
    """`deployment` and `deployment_status`."""

    deployment: _DeploymentTarget


class Status(Delivery):
    """`status` of a commit."""

    sha: Commit


class Suite(_Part):
    """What both kinds of checks have their revision from."""

    head_sha: Commit
    head_branch: Ref | None = None


class CheckSuite(Delivery):
    """`check_suite`; the head branch of a fork's pull request is null."""

    action: Action
    check_suite: Suite


class _Run(_Part):
    check_suite: Suite


class CheckRun(Delivery):
    """`check_run`, whose revision is its suite's."""

    action: Action
    check_run: _Run


class _MergeGroup(_Part):
    head_sha: Commit
    head_ref: Ref
    base_ref: Ref


class MergeGroupDelivery(Delivery):
    """`merge_group`; the reason comes with the action `destroyed`."""

    action: Action
    merge_group: _MergeGroup
    reason: Action | None = None


Model = TypeVar("Model", bound=BaseModel)


def read_as(model: type[Model], document: dict[str, Any], *, what: str) -> Model:
    """`document` as `model`. Raises UnreadableEvent, naming the first field that is wrong and never its value."""
    try:
        return model.model_validate(document)
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise UnreadableEvent(f"reading {what}: {field}: {message[0].lower()}{message[1:]}"[:300]) from None
