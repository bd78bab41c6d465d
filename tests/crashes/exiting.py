"""The exit handler over dying ports."""

from dataclasses import replace

from bridge import exiting
from bridge.settings import Settings
from tests.crashes.dying import dying


def flow_of(settings: Settings):
    flow = exiting.exit_flow(settings)
    return replace(
        flow,
        runs=dying(flow.runs, "Runs", role="exit"),
        engine=dying(flow.engine, "Engine", role="exit"),
        builds=dying(flow.builds, "Builds", role="exit"),
    )


if __name__ == "__main__":
    exiting.main(flow_of)
