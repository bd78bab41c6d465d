"""Lifecycle notifications, in the controller and on one machine."""

from collections.abc import Callable

from bridge.flows.notifying import Notifying, Owing
from bridge.outbound.endpoints import endpoints_of
from bridge.outbound.webhooks import Webhooks
from bridge.ports import Clock, Runs
from bridge.settings import Settings

SOURCE = "/brigade-argo-bridge"
"""Of CloudEvents, where there is no public URL."""


def notifying(
    settings: Settings,
    *,
    runs: Runs,
    owing: Owing,
    clock: Clock,
    url: str = "",
    leads: Callable[[], bool] = lambda: True,
) -> Notifying:
    """What tells the endpoints that the settings name; without any it only gives up what earlier ones are owed.

    `url` is where the pages are, unless the settings know better. Raises BadSettings.
    """
    base = settings.public_url or url
    endpoints = endpoints_of(settings.notify_file) if settings.notify_file is not None else ()
    return Notifying(
        runs,
        Webhooks(endpoints, clock),
        clock,
        owing=owing,
        # Not `url`, which may be another one after a restart: source and id tell a repeat.
        source=settings.public_url or SOURCE,
        url_of=(lambda run: f"{base}/runs/{run}") if base else (lambda _run: ""),
        give_up_seconds=settings.notify_days * 86400.0,
        leads=leads,
    )
