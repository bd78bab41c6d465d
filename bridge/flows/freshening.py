"""The installation token in a payload: empty in the record, fresh in a build (design.md, On the wire)."""

from collections.abc import Callable
from dataclasses import dataclass

from bridge.core.events.wrappers import lacks_token, with_token
from bridge.core.runs import Run
from bridge.ports import InstallationTokens, NoToken


class NoApp:
    """InstallationTokens where there is no GitHub App."""

    def fresh(self, run_id: str, project: str) -> NoToken:
        """There is none."""
        del run_id, project
        return NoToken("no GitHub App is configured")


@dataclass(frozen=True)
class Freshening:
    """Call it with a run and its payload right before a build is made; answers the payload for the build."""

    tokens: InstallationTokens
    say: Callable[[str], None]
    """Takes lines for people."""

    def __call__(self, run: Run, payload: bytes) -> bytes:
        """`payload` with a token if it is one that carries one. Raises EngineError when there is none now."""
        if not lacks_token(run.event, payload):
            return payload
        found = self.tokens.fresh(run.id, run.event.project)
        if isinstance(found, NoToken):
            self.say(f"the token in the payload of run {run.id} stays empty: {found.reason}")
            return payload
        return with_token(run.event, payload, token=found.token, expires=found.expires)
