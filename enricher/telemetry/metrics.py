"""The page of the stage's own metrics: the table of `instruments` through the OpenTelemetry SDK, for Prometheus."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from enricher import __version__
from enricher.telemetry.instruments import INSTRUMENTS, PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.metrics import CallbackOptions

    from enricher.telemetry.instruments import Instrument, Reading


class Metrics:
    """
    Makes the page. It owns no thread and no socket; `shutdown` lets the SDK go.

    Beside the table stand the `process_*` metrics of Prometheus' client: memory, CPU, start time, open files.
    """

    def __init__(self) -> None:
        self._reading: Reading
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)
        # Not Resource.create(): what the environment says of applications would stand on the page.
        resource = Resource({"service.name": PREFIX, "service.version": __version__})
        self._provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        meter = self._provider.get_meter(PREFIX)
        kinds = {"counter": meter.create_observable_counter, "gauge": meter.create_observable_gauge}
        for each in INSTRUMENTS:
            name, callbacks = f"{PREFIX}_{each.name}", [partial(self._observe, each)]
            kinds[each.kind](name, callbacks, unit=each.unit, description=each.description)
        ProcessCollector(registry=self._registry)

    def page(self, reading: Reading) -> bytes:
        """Return the text, in UTF-8; nothing else may run on the loop between the reading and this."""
        self._reading = reading
        return generate_latest(self._registry)

    def shutdown(self) -> None:
        """End. The provider complains of a second call."""
        self._provider.shutdown()

    def _observe(self, instrument: Instrument, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, labels) for value, labels in instrument.read(self._reading)]
