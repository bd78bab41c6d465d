"""The step's process over dying ports."""

from bridge import step
from bridge.wiring.local_steps import LocalPlace
from bridge.wiring.steps import place_of
from tests.crashes.dying import dying


class DyingPlace(LocalPlace):
    """Where a step stands, which does not outlive its writing."""

    def runs(self):
        return dying(super().runs(), "Runs", role="step")

    def builds(self):
        return dying(super().builds(), "Builds", role="step")


if __name__ == "__main__":
    step.main(where=lambda flags: DyingPlace(**vars(place_of(flags))))
