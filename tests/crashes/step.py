"""The step's process over dying ports."""

from bridge import step
from bridge.wiring.steps import Place, place_of
from tests.crashes.dying import dying


class DyingPlace(Place):
    """Where a step stands, which does not outlive its writing."""

    def runs(self):
        return dying(super().runs(), "Runs", role="step")

    def builds(self):
        return dying(super().builds(), "Builds", role="step")


if __name__ == "__main__":
    step.main(where=lambda: DyingPlace(**vars(place_of())))
