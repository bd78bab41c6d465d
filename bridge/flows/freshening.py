"""The installation token in a payload: empty in the record, fresh in a build (design.md, On the wire)."""

from collections.abc import Callable
from dataclasses import dataclass

from bridge.core.events.wrappers import lacks_token, with_token
from bridge.core.runs import Run
from bridge.errors import Forbidden
from bridge.ports import InstallationToken, InstallationTokens, NoToken


@dataclass(frozen=True)
class Freshening:
    """Call it with a run and its payload right before a build is made; answers the payload for the build."""

    tokens: InstallationTokens
    say: Callable[[str], None]
    """Takes lines for people."""
    lenient: bool = False
    """A token that is refused is gone without too: the exit event may not keep a run open for ever."""

    def __call__(self, run: Run, payload: bytes) -> bytes:
        """`payload` with a token if it is one that carries one. Raises EngineError when there is none now."""
        if not lacks_token(run.event, payload):
            return payload
        found = self._found(run)
        if isinstance(found, NoToken):
            self.say(f"the payload's token stays empty: {found.reason}")
            return payload
        return with_token(run.event, payload, token=found.token, expires=found.expires)

    def _found(self, run: Run) -> InstallationToken | NoToken:
        try:
            return self.tokens.fresh(run.id, run.event.project)
        except Forbidden as error:
            if not self.lenient:
                raise
            return NoToken(str(error))
