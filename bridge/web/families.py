"""Values by the names of metrics, as Prometheus wants them."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from bridge.core.metrics import Value, described, is_counter


class Families:
    """A collector of `prometheus_client` over values that are asked for at each scrape.

    Args:
        values: answers them by the names of core.metrics.

    """

    def __init__(self, values: Callable[[], Mapping[str, Value]]) -> None:
        self._values = values

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        """One family for each metric, with the help of core.metrics."""
        for name, value in self._values().items():
            metric = described(name)
            kind = CounterMetricFamily if is_counter(name) else GaugeMetricFamily
            if isinstance(value, Mapping):
                family = kind(name, metric.help, labels=[metric.label or "kind"])
                for of, number in value.items():
                    family.add_metric([of], number)
            else:
                family = kind(name, metric.help, value=value)
            yield family
