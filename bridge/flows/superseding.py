"""Which run of a concurrency group is the newest: asked at looks at open runs of pipelines that want it."""

from dataclasses import replace
from typing import Protocol

from bridge.core.concurrency import Member, group_of, member_of, newest_of
from bridge.core.runs import Run
from bridge.ports import RunFilter, Runs

_PAGE = 50


class Groups(Protocol):
    """What is known of the runs of a group, at the price of a look at an index."""

    def newest(self, run: Run) -> Member | None:
        """The newest run of the pipeline, project and group of `run`, maybe itself; None: not known."""
        ...


class ListedGroups:
    """The groups of one machine, whose database answers at once."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def newest(self, run: Run) -> Member | None:
        """See Groups. Of what was accepted lately: a list is in that order."""
        group = group_of(run.event)
        if not group:
            return None
        wanted = RunFilter(
            project=run.event.project,
            pipeline=run.pipeline,
            pull_request=run.event.pull_request,
            branch=run.event.branch if run.event.pull_request is None else "",
            limit=_PAGE,
        )
        while True:
            page = self._runs.list(wanted)
            # A branch's list has the pull requests for it, too.
            found = newest_of(member_of(one) for one in page if group_of(one.event) == group)
            if found is not None or len(page) < _PAGE:
                return found
            wanted = replace(wanted, after=page[-1].id)
