"""The words by which people find a run in a list."""

from collections.abc import Callable, Sequence

from bridge.core.events import Event


def search_text(run_id: str, pipeline: str, event: Event) -> str:
    """What a search looks through, in lower case, a line each: nothing that a list does not show."""
    shown = (
        run_id,
        event.project,
        pipeline,
        event.type,
        event.revision.commit,
        event.branch,
        event.tag,
        "" if event.pull_request is None else f"#{event.pull_request}",
        event.long_title or event.short_title,
        event.sender,
    )
    return storable("\n".join(one for one in shown if one)).casefold()


def search_words(said: str) -> tuple[str, ...]:
    """The words of a search, as `search_text` has them."""
    return tuple(storable(said).casefold().split())


def is_found(words: Sequence[str], text: Callable[[], str]) -> bool:
    """Whether all words are in the text, which is asked for only if there are any."""
    if not words:
        return True
    searched = text()
    return all(word in searched for word in words)


def storable(text: str) -> str:
    """`text` as every store keeps it: half a surrogate pair is JSON but no UTF-8 and becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
