"""The exception family of bridge.

Expected results are values (an ignored event, a failed build); an exception means that something
could not be found out, or may not be done::

    BridgeError
      EventRejected        what came in is refused; nothing was stored
        BadSignature         nobody who knows the secret sent this
        UnreadableEvent      not what its route promises
        TooLarge             over a limit of bytes
        KeyReused            same Idempotency-Key, another body
      Misconfigured        a person has to change something
        UnknownProject
        BadPipeline
        BadProject
        BadSettings
      EngineError          the world behind a port said no, or nothing
        NotFound
        Conflict             it is there already, or it changed meanwhile
        Forbidden
        Unavailable          ask again later
      StatusNotPosted      the git host did not take a status
        StatusPutOff         nobody was asked: its limits leave no room now
        StatusOverwritten    it was taken, and the context shows another one
      NotDelivered         an endpoint did not take a notification
"""


class BridgeError(Exception):
    """The root: everything that bridge raises on purpose."""


class EventRejected(BridgeError):
    """An incoming event is refused and nothing was stored."""


class BadSignature(EventRejected):
    """No active secret verifies this body."""


class UnreadableEvent(EventRejected):
    """The request is not what its route promises."""


class TooLarge(EventRejected):
    """The body or what would be stored of it is over a limit."""


class KeyReused(EventRejected):
    """An Idempotency-Key was seen before with another body."""


class Misconfigured(BridgeError):
    """A person has to change a file, a setting or a project."""


class UnknownProject(Misconfigured):
    """There is no project of this name."""


class BadPipeline(Misconfigured):
    """A pipeline file or WorkflowTemplate cannot be used; the message names file, field and remedy."""


class BadProject(Misconfigured):
    """A project's configuration cannot be used; the message names file, field and remedy."""


class BadSettings(Misconfigured):
    """A setting is missing or wrong; the message names the variable."""


class EngineError(BridgeError):
    """The world behind a port refused or did not answer."""


class NotFound(EngineError):
    """What was asked for is not there, on a consistent read."""


class Conflict(EngineError):
    """It exists already, or it changed since it was read."""


class Forbidden(EngineError):
    """These credentials may not do this."""


class Unavailable(EngineError):
    """No usable answer; asking again later may help.

    Args:
        message: what was tried, what came back, the next move.
        retry_after_seconds: after how long, if that was said.
        busy: too many ask, and nothing was begun.

    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None, busy: bool = False) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.busy = busy


class StatusNotPosted(BridgeError):
    """The git host did not take a commit status.

    Args:
        message: what was tried, what came back, the next move.
        permanent: asking again cannot help (404, 410, 422).
        retry_after_seconds: what the host asked for, if it did.
        unsure: it may be taken all the same, even later, on top of what comes meanwhile.

    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        retry_after_seconds: float | None = None,
        unsure: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_seconds = retry_after_seconds
        self.unsure = unsure


class NotDelivered(BridgeError):
    """An endpoint did not take a notification, or its answer did not come.

    Args:
        message: what came back and the next move; nothing of the endpoint's URL or secrets.
        permanent: this one will never be taken.
        retry_after_seconds: what the endpoint asked for, if it did.

    """

    def __init__(self, message: str, *, permanent: bool = False, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_seconds = retry_after_seconds


class StatusPutOff(StatusNotPosted):
    """The git host was not asked: what it said before leaves no room now.

    Args:
        message: which limit, and until when.
        retry_after_seconds: when there may be room.
        turn: it is only that final statuses go first: a final one of the same run need not wait so long.

    """

    def __init__(self, message: str, *, retry_after_seconds: float, turn: bool = False) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.turn = turn


class StatusOverwritten(StatusNotPosted):
    """The git host took the status, and its context shows another one on top: it is owed again."""
