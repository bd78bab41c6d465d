"""The end of a merge group: what still runs for it is cancelled, unless the group was merged.

Of a merged group the commit is the branch's from here on, and what runs for it is wanted to its end.
"""

from bridge.core.events.merge_groups import EVENT, MERGED, Destroyed
from bridge.core.pipelines import MERGE_QUEUE
from bridge.core.runs import Kind, Run
from bridge.flows.acting import Acted, act
from bridge.ports import Clock, RunFilter, Runs

SOURCE = "merge queue"
"""Of the acts that the end of a group asks for."""


def dequeue(group: Destroyed, *, runs: Runs, clock: Clock) -> tuple[Acted, ...]:
    """Cancel the open runs of a group that is given up, each once however often the delivery comes.

    Raises Unavailable: then it has to come again.
    """
    if group.reason == MERGED:
        return ()
    found = runs.list(RunFilter(project=group.project, sha=group.sha, open_only=True))
    return tuple(
        act(
            runs,
            run.id,
            Kind.CANCEL,
            request=f"{EVENT}/{group.delivery}/{run.id}",
            who=f"the merge queue ({group.reason})" if group.reason else "the merge queue",
            source=SOURCE,
            now=clock.now(),
        )
        for run in found
        if _is_of_queue(run)
    )


def _is_of_queue(run: Run) -> bool:
    return run.event.family == EVENT or run.event.branch.startswith(MERGE_QUEUE)
