"""
Every metric of the stage: one table, of which `docs/metrics.md` is the text.

Stems are the Collector's, behind `enricher_`. Labels hold words of closed sets and names that stand in the
configuration, never anything that was found in telemetry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from enricher.otlp.shallow import Signal
from enricher.telemetry.counters import COUNTED, Amount, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from enricher.telemetry.counters import Counters, ExporterCounts, HoldCounts, Stock

    Values = Iterator[tuple[float, dict[str, str]]]
    Kind = Literal["counter", "gauge"]

PREFIX = "enricher"

_NOUNS = {
    Signal.TRACES: ("spans", "{span}", "Spans"),
    Signal.LOGS: ("log_records", "{log_record}", "Log records"),
}


class Reading(NamedTuple):
    """
    What the values come from.

    `exporters` are the counts of each by name; the first one's answers are those that clients get. There is no stock
    where the store does not answer: no number is better than a wrong one.
    """

    counters: Counters
    exporters: Mapping[str, ExporterCounts]
    hold: HoldCounts
    recovered: Stock | None
    """What the store held when it was opened."""
    stock: Stock | None
    is_healthy: bool
    """Whether the store can be written; true where there is none."""
    expiries: Mapping[str, float] = {}
    """When the certificates of each `tls` section expire, in Unix time, by its key."""


class Instrument(NamedTuple):
    """One metric: how it is called, what it means, and how its values are read."""

    name: str
    kind: Kind
    unit: str
    description: str
    labels: tuple[str, ...]
    read: Callable[[Reading], Values]

    @property
    def exposed(self) -> str:
        """Its name on the page, where Prometheus wants unit and kind at the end."""
        unit = {"By": "_bytes", "s": "_seconds"}.get(self.unit, "")
        return f"{PREFIX}_{self.name}{unit}{'_total' if self.kind == 'counter' else ''}"


def _plain(kind: Kind, name: str, unit: str, description: str, read: Callable[[Reading], int]) -> Instrument:
    def values(reading: Reading) -> Values:
        yield read(reading), {}

    return Instrument(name, kind, unit, description, (), values)


def _stored(name: str, unit: str, description: str, read: Callable[[Stock], int]) -> Instrument:
    """Return a gauge of the store."""

    def values(reading: Reading) -> Values:
        if reading.stock is not None:
            yield read(reading.stock), {}

    return Instrument(name, "gauge", unit, description, (), values)


def _exporters(kind: Kind, name: str, unit: str, description: str, read: Callable[[ExporterCounts], int]) -> Instrument:
    """Return an instrument with a value for each exporter."""

    def values(reading: Reading) -> Values:
        for exporter, counts in reading.exporters.items():
            yield read(counts), {"exporter": exporter}

    return Instrument(name, kind, unit, description, ("exporter",), values)


def _queues(
    name: str, unit: str, description: str, read: Callable[[Stock], Mapping[tuple[str, Signal], Amount]]
) -> Instrument:
    """Return a gauge of the batches that the store has for each exporter."""

    def values(reading: Reading) -> Values:
        if reading.stock is not None:
            amounts = read(reading.stock)
            for exporter in reading.exporters:
                batches = sum(amounts.get((exporter, signal), Amount()).batches for signal in Signal)
                yield batches, {"exporter": exporter}

    return Instrument(name, "gauge", unit, description, ("exporter",), values)


def _answered(name: str, description: str, read: Callable[[Reading, Signal], int]) -> Iterator[Instrument]:
    """Yield a counter of items for each signal."""
    for signal in COUNTED:
        noun, unit, words = _NOUNS[signal]

        def of_signal(reading: Reading, signal: Signal = signal) -> int:
            return read(reading, signal)

        yield _plain("counter", f"{name}_{noun}", unit, f"{words} {description}", of_signal)


def _items(
    kind: Kind, name: str, description: str, read: Callable[[Reading, str, Signal], int | None]
) -> Iterator[Instrument]:
    """Yield an instrument of items for each signal, with a value for each exporter unless `read` has none."""
    for signal in COUNTED:
        noun, unit, words = _NOUNS[signal]

        def values(reading: Reading, signal: Signal = signal) -> Values:
            for exporter in reading.exporters:
                if (value := read(reading, exporter, signal)) is not None:
                    yield value, {"exporter": exporter}

        yield Instrument(f"{name}_{noun}", kind, unit, f"{words} {description}", ("exporter",), values)


def _accepted(reading: Reading, signal: Signal) -> int:
    taken = next((counts.taken[signal] for counts in reading.exporters.values()), 0)
    return taken + (reading.hold.held if signal is Signal.TRACES else 0)


def _requests(reading: Reading) -> Values:
    for signal in Signal:
        for answer in Answer:
            yield reading.counters.requests[signal, answer], {"signal": signal.value, "answer": answer.value}


def _auth_failures(reading: Reading) -> Values:
    for transport in ("grpc", "http"):
        yield reading.counters.auth_failures[transport], {"transport": transport}


def _expiries(reading: Reading) -> Values:
    for key, expires in reading.expiries.items():
        yield expires, {"key": key}


def _released(reading: Reading) -> Values:
    yield reading.hold.released_by_evidence, {"by": "evidence"}
    yield reading.hold.released_at_deadline, {"by": "deadline"}


def _outcomes(reading: Reading) -> Values:
    for (rule, reason, rung), number in reading.counters.outcomes.items():
        yield number, {"rule": rule, "reason": reason.value, "rung": rung.value if rung is not None else ""}


def _queued(reading: Reading, exporter: str, signal: Signal) -> int | None:
    return None if reading.stock is None else reading.stock.queued.get((exporter, signal), Amount()).items


def _dead(reading: Reading, exporter: str, signal: Signal) -> int | None:
    return None if reading.stock is None else reading.stock.dead.get((exporter, signal), Amount()).items


INSTRUMENTS: tuple[Instrument, ...] = (
    *_answered("receiver_accepted", "that the stage answers for: delivered, queued or held.", _accepted),
    *_answered(
        "receiver_refused",
        "that their sender was told to keep: they could be neither delivered nor kept.",
        lambda reading, signal: reading.counters.refused[signal],
    ),
    *_answered(
        "receiver_failed",
        "that their sender was told to keep because of an error of the stage's own.",
        lambda reading, signal: reading.counters.failed[signal],
    ),
    Instrument(
        "receiver_requests",
        "counter",
        "{request}",
        "Requests by their answer: `accepted`, `refused`, `failed`, or `bad_request` for what is not OTLP.",
        ("signal", "answer"),
        _requests,
    ),
    Instrument(
        "receiver_auth_failures",
        "counter",
        "{request}",
        "Requests of any kind that were refused because they came without valid credentials.",
        ("transport",),
        _auth_failures,
    ),
    *_items(
        "counter",
        "recovered",
        "that the store held when the process started, held ones included.",
        lambda reading, exporter, signal: reading.recovered and reading.recovered.items(exporter, signal),
    ),
    *_items(
        "counter",
        "exporter_sent",
        "that downstream has taken.",
        lambda reading, exporter, signal: reading.exporters[exporter].sent[signal],
    ),
    *_items(
        "counter",
        "exporter_rejected",
        "that downstream rejected in a partial success. They are not sent again.",
        lambda reading, exporter, signal: reading.exporters[exporter].rejected[signal],
    ),
    *_items(
        "counter",
        "exporter_send_failed",
        "in calls that failed; what is tried three times counts three times.",
        lambda reading, exporter, signal: reading.exporters[exporter].send_failed[signal],
    ),
    *_items(
        "counter",
        "exporter_enqueue_failed",
        "that the store did not take.",
        lambda reading, exporter, signal: reading.exporters[exporter].enqueue_failed[signal],
    ),
    _exporters(
        "counter",
        "exporter_splits",
        "{request}",
        "Requests that were refused, and sent again in parts.",
        lambda counts: counts.splits,
    ),
    _exporters(
        "gauge",
        "exporter_in_flight_requests",
        "{request}",
        "Requests that downstream has not answered yet.",
        lambda counts: counts.in_flight,
    ),
    _queues(
        "exporter_queue_size",
        "{batch}",
        "Batches of all signals that wait in the queue or are being sent out of it.",
        lambda stock: stock.queued,
    ),
    *_items("gauge", "exporter_queue", "in these batches.", _queued),
    _stored(
        "exporter_queue_capacity",
        "By",
        "Size that the store may have. Queues, held spans, dead letters and evidence share it.",
        lambda stock: stock.max_bytes,
    ),
    _queues(
        "dead_letter_batches",
        "{batch}",
        "Batches of all signals that downstream refused for good, and that are kept.",
        lambda stock: stock.dead,
    ),
    *_items("gauge", "dead_letter", "in these batches.", _dead),
    _stored("hold_spans", "{span}", "Spans that wait for evidence.", lambda stock: stock.held),
    Instrument(
        "hold_released",
        "counter",
        "{span}",
        "Spans whose wait has ended, by `evidence` or by their `deadline`.",
        ("by",),
        _released,
    ),
    _plain(
        "counter",
        "hold_bypassed",
        "{span}",
        "Spans that lacked something and passed on at once, because there was no room to hold them.",
        lambda reading: reading.hold.bypassed,
    ),
    _plain(
        "counter",
        "hold_late_evidence",
        "{payload}",
        "Evidence of a run whose span had left without it.",
        lambda reading: reading.hold.late,
    ),
    Instrument(
        "enrich_outcomes",
        "counter",
        "{span}",
        "Candidates by the rule that recognised them, why they left as they did, and the rung that decided.",
        ("rule", "reason", "rung"),
        _outcomes,
    ),
    _plain(
        "counter",
        "enrich_errors",
        "{error}",
        "Steps that failed. The span passed on as it came; the first of a kind is in the log.",
        lambda reading: reading.counters.step_failures,
    ),
    _stored("store_used", "By", "Size of what the store holds.", lambda stock: stock.used_bytes),
    _stored(
        "store_quarantined_items",
        "{item}",
        "Items whose bytes had changed on the disk. They are kept, and not delivered.",
        lambda stock: stock.quarantined,
    ),
    _plain(
        "gauge", "store_healthy", "", "1 while the store can be written, else 0.", lambda reading: reading.is_healthy
    ),
    Instrument(
        "tls_certificate_expiry_timestamp",
        "gauge",
        "s",
        "When the certificate of a `tls` section, or the first of its chain, expires, in Unix time.",
        ("key",),
        _expiries,
    ),
)
