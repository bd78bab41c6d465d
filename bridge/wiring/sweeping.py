"""Looking for missed deliveries, in the controller and on one machine."""

import logging
from collections.abc import Callable

from bridge.flows.sweeping import Sweeping
from bridge.github.deliveries import GitHubDeliveries
from bridge.ports import Clock, Projects
from bridge.settings import Settings
from bridge.wiring.reporting import github_app

log = logging.getLogger(__name__)


def sweeping(
    settings: Settings, projects: Projects, clock: Clock, *, leads: Callable[[], bool] = lambda: True
) -> Sweeping | None:
    """What looks for missed deliveries, None if nothing does. Raises BadSettings."""
    if not settings.sweep_minutes:
        return None
    if not settings.webhook:
        log.info(
            "missed deliveries are not looked for: set BRIDGE_WEBHOOK_URL (or BRIDGE_PUBLIC_URL), "
            "by which the webhooks are known that are ours"
        )
        return None
    found = delivery_logs(settings, projects, clock)
    return Sweeping(found, clock, every_seconds=settings.sweep_minutes * 60.0, leads=leads)


def delivery_logs(settings: Settings, projects: Projects, clock: Clock) -> GitHubDeliveries:
    """The logs of the webhooks that point to us. Raises BadSettings."""
    return GitHubDeliveries(
        projects.all,
        webhook_url=settings.webhook,
        app=github_app(settings),
        base_url=settings.github_api_url,
        clock=clock,
    )
