"""What the metrics of bridge's processes are called and mean: one table for /metrics, the docs and the alerts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Value = float | Mapping[str, float]
"""Of a metric without a label, or by the values of its one label."""


@dataclass(frozen=True)
class Metric:
    """What Prometheus is told of a metric."""

    help: str
    label: str = ""
    """The name of its one label; empty: it has none."""


METRICS: Mapping[str, Metric] = {
    "bridge_leading": Metric("1 for the controller that leads."),
    "bridge_open_runs": Metric("Runs that are not closed."),
    "bridge_oldest_pending_seconds": Metric(
        "For how long the oldest run that has no final status yet has been going on; 0: there is none."
    ),
    "bridge_overdue_seconds": Metric(
        "For how long a final status has been due at most, its run's deadline counted in; 0: none is."
    ),
    "bridge_owed_actions": Metric("Actions that runs are owed and that could not be done yet.", "kind"),
    "bridge_actions_total": Metric("Actions that were done.", "kind"),
    "bridge_statuses_total": Metric("What came of statuses that were to be posted.", "result"),
    "bridge_looks_total": Metric("Looks at runs that were begun."),
    "bridge_broken_records": Metric("Records that are set aside since they cannot be read."),
    "bridge_broken_pipelines": Metric("Pipelines that are set aside since they cannot be read."),
    "bridge_broken_projects": Metric("Projects that are set aside since they cannot be read."),
    "bridge_delivery_sweeps_total": Metric("Looks through GitHub's logs of deliveries."),
    "bridge_delivery_sweep_troubles_total": Metric("What went wrong at looks through GitHub's logs."),
    "bridge_deliveries_lost": Metric("Deliveries that GitHub could not get rid of and did not send again yet."),
    "bridge_deliveries_redelivered_total": Metric("Deliveries that were asked for again."),
    "bridge_deliveries_expired_total": Metric("Deliveries that were lost for good."),
    "bridge_notifications_waiting": Metric("Notifications that endpoints were not told of yet."),
    "bridge_notifications_delivered_total": Metric("Notifications that an endpoint took."),
    "bridge_notifications_failed_total": Metric("Tries of notifications that failed and are made again."),
    "bridge_notifications_given_up_total": Metric("Notifications that no endpoint took in all their time."),
}
"""By name. What ends in `_total` is a counter that begins at 0 with its process, all else a gauge."""


def is_counter(name: str) -> bool:
    """Whether a metric of this name only grows."""
    return name.endswith("_total")


def described(name: str) -> Metric:
    """What is known of a metric; one that is in no table is described by its name."""
    return METRICS.get(name) or Metric(f"{name.removeprefix('bridge_').replace('_', ' ').capitalize()}.")


def waits(runs: Iterable[tuple[float | None, float | None]], *, now: float) -> dict[str, float]:
    """How long runs have been without a final status, of `obligations.pending_since` and `final_due` of each."""
    pending, overdue = 0.0, 0.0
    for since, due in runs:
        pending = max(pending, now - since) if since is not None else pending
        overdue = max(overdue, now - due) if due is not None else overdue
    return {"bridge_oldest_pending_seconds": pending, "bridge_overdue_seconds": overdue}
