"""The page of metrics against its table, and the numbers on it against each other."""

from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from enricher.deliver.counts import Counts
from enricher.otlp.shallow import Signal
from enricher.outcome import Outcome, Reason, Rung
from enricher.telemetry.counters import Amount, Answer, Counters, NothingHeld, Stock
from enricher.telemetry.instruments import INSTRUMENTS, Reading
from enricher.telemetry.metrics import Metrics

NOUNS = {Signal.TRACES: "spans", Signal.LOGS: "log_records"}


@pytest.fixture(name="metrics", scope="module")
def _metrics():
    made = Metrics()
    yield made
    made.shutdown()


def reading(**parts) -> Reading:
    """Return a reading of a stage with one exporter that has done nothing, but for `parts`."""
    quiet = Reading(Counters(), {"otlp": Counts()}, NothingHeld(), Stock(), Stock(), is_healthy=True)
    return quiet._replace(**parts)


def scraped(metrics: Metrics, of: Reading) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return what a scraper finds: values by name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(metrics.page(of).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def outcome(rule: str, reason: Reason, rung: Rung | None) -> Outcome:
    return Outcome("00" * 16, "00" * 8, "name", "service", "scope", rule, reason, rung=rung)


def test_the_page_has_the_metrics_of_the_table_and_of_the_process_and_no_others(metrics):
    counters = Counters()
    counters.note([outcome("mine", Reason.ENRICHED, Rung.RUN_ID)])
    page = metrics.page(reading(counters=counters, expiries={"receivers.otlp.protocols.grpc.tls": 2e9}))
    families = {family.name: family for family in text_string_to_metric_families(page.decode())}
    ours = {name: family for name, family in families.items() if name.startswith("enricher_")}

    assert {name for name in families if name not in ours} <= {
        "target_info",
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_cpu_seconds",
        "process_open_fds",
        "process_max_fds",
    }
    assert {
        (family.type, family.documentation, sample.name, *sorted(sample.labels))
        for family in ours.values()
        for sample in family.samples
    } == {(each.kind, each.description, each.exposed, *sorted(each.labels)) for each in INSTRUMENTS}


def test_names_and_descriptions_are_said_once_and_end_like_sentences():
    assert len({each.name for each in INSTRUMENTS}) == len(INSTRUMENTS)
    assert [each.name for each in INSTRUMENTS if not each.description.endswith((".", ". "))] == []


def test_f26_without_an_answer_of_the_store_its_numbers_are_left_out(metrics):
    """No number is better than a wrong one."""
    known = scraped(metrics, reading())
    unknown = scraped(metrics, reading(stock=None, recovered=None, is_healthy=False))

    assert set(known) - set(unknown) == {
        each.exposed
        for each in INSTRUMENTS
        if each.name.startswith(("exporter_queue", "dead_letter", "recovered", "hold_spans", "store_"))
    } - {"enricher_store_healthy"}
    assert (known["enricher_store_healthy"][()], unknown["enricher_store_healthy"][()]) == (1, 0)


def test_what_the_store_holds_is_told_by_exporter_and_signal(metrics):
    queued = {
        ("otlp", Signal.TRACES): Amount(2, 30),
        ("otlp", Signal.METRICS): Amount(1, 0),
        ("file", Signal.LOGS): Amount(4, 5),
        ("of another configuration", Signal.TRACES): Amount(7, 8),
    }
    stock = Stock(held=3, queued=queued, quarantined=6, used_bytes=10, max_bytes=20)
    found = scraped(metrics, reading(exporters={"otlp": Counts(), "file": Counts()}, stock=stock))

    otlp, file = (("exporter", "otlp"),), (("exporter", "file"),)
    assert found["enricher_exporter_queue_size"] == {otlp: 3, file: 4}
    assert found["enricher_exporter_queue_spans"] == {otlp: 30, file: 0}
    assert found["enricher_exporter_queue_log_records"] == {otlp: 0, file: 5}
    assert found["enricher_exporter_queue_capacity_bytes"][()] == 20
    assert found["enricher_store_used_bytes"][()] == 10
    assert found["enricher_store_quarantined_items"][()] == 6
    assert found["enricher_hold_spans"][()] == 3


def test_answers_are_counted_in_requests_and_those_not_taken_in_items_too(metrics):
    counters = Counters()
    for answer in Answer:
        counters.answered(Signal.LOGS, answer, 5)
    found = scraped(metrics, reading(counters=counters))

    assert {labels: value for labels, value in found["enricher_receiver_requests_total"].items() if value} == {
        (("answer", answer.value), ("signal", "logs")): 1 for answer in Answer
    }
    assert found["enricher_receiver_refused_log_records_total"][()] == 5
    assert found["enricher_receiver_failed_log_records_total"][()] == 5
    assert found["enricher_receiver_refused_spans_total"][()] == 0


def test_requests_without_credentials_are_counted_by_transport(metrics):
    counters = Counters()
    counters.unauthenticated("http")
    found = scraped(metrics, reading(counters=counters))

    assert found["enricher_receiver_auth_failures_total"] == {(("transport", "grpc"),): 0, (("transport", "http"),): 1}


def test_items_are_accepted_when_the_first_exporter_has_taken_them_or_they_are_held(metrics):
    first, second = Counts(Counter({Signal.TRACES: 7})), Counts(Counter({Signal.TRACES: 5}))
    found = scraped(metrics, reading(exporters={"otlp": first, "file": second}, hold=replace(NothingHeld(), held=2)))

    assert found["enricher_receiver_accepted_spans_total"][()] == 9
    assert found["enricher_receiver_accepted_log_records_total"][()] == 0


@given(st.lists(st.tuples(st.sampled_from(Reason), st.sampled_from([None, *Rung])), max_size=40), st.integers(0, 3))
def test_outcomes_are_all_counted_and_their_labels_are_of_closed_sets(metrics, ended, failures):
    """Service names, ids and span names of candidates are nowhere on the page."""
    counters = Counters()
    counters.note([outcome(f"rule-{n % 2}", *each) for n, each in enumerate(ended)], failures)
    page = metrics.page(reading(counters=counters)).decode()
    found = scraped(metrics, reading(counters=counters))
    samples = found.get("enricher_enrich_outcomes_total", {})

    assert sum(samples.values()) == len(ended)
    assert len(samples) <= 2 * len(Reason) * (len(Rung) + 1)
    for labels in map(dict, samples):
        assert labels["rule"] in ("rule-0", "rule-1")
        assert Reason(labels["reason"])
        assert not labels["rung"] or Rung(labels["rung"])
    assert found["enricher_enrich_errors_total"][()] == failures
    assert not any(text in page for text in ("service=", "scope", "00" * 8))


# ---- conservation


@dataclass
class Stage:
    """
    A stage in the large: what its parts count, and what its store holds, each kept for itself.

    `waiting` are batches of the one exporter; each event does what the part that it names does to both.
    """

    exporter: Counts = field(default_factory=Counts)
    hold: NothingHeld = field(default_factory=NothingHeld)
    recovered: Stock = field(default_factory=Stock)
    held: int = 0
    waiting: list[tuple[Signal, int]] = field(default_factory=list)
    dead: list[tuple[Signal, int]] = field(default_factory=list)

    def deliver(self, signal: Signal, items: int, rejected: int) -> None:
        self.exporter.taken[signal] += items
        self._sent(signal, items, rejected)

    def enqueue(self, signal: Signal, items: int, _rejected: int) -> None:
        self.exporter.taken[signal] += items
        self.exporter.send_failed[signal] += items
        self.waiting.append((signal, items))

    def wait(self, _signal: Signal, items: int, _rejected: int) -> None:
        self.hold.held += items
        self.held += items

    def release(self, _signal: Signal, items: int, _rejected: int) -> None:
        items = min(items, self.held)
        self.held -= items
        self.hold.released_by_evidence += items
        self.waiting.append((Signal.TRACES, items))

    def drain(self, _signal: Signal, _items: int, rejected: int) -> None:
        if self.waiting:
            self._sent(*self.waiting.pop(0), rejected)

    def fail(self, _signal: Signal, _items: int, _rejected: int) -> None:
        for signal, items in self.waiting[:1]:
            self.exporter.send_failed[signal] += items

    def bury(self, _signal: Signal, _items: int, _rejected: int) -> None:
        self.dead += self.waiting[:1]
        del self.waiting[:1]

    def restart(self, _signal: Signal, _items: int, _rejected: int) -> None:
        self.exporter, self.hold = Counts(), NothingHeld()
        self.recovered = self.stock()

    def _sent(self, signal: Signal, items: int, rejected: int) -> None:
        self.exporter.sent[signal] += items - min(items, rejected)
        self.exporter.rejected[signal] += min(items, rejected)

    def stock(self) -> Stock:
        return Stock(self.held, amounts(self.waiting), amounts(self.dead))

    def reading(self) -> Reading:
        return Reading(Counters(), {"otlp": self.exporter}, self.hold, self.recovered, self.stock(), is_healthy=True)


def amounts(batches: list[tuple[Signal, int]]) -> dict[tuple[str, Signal], Amount]:
    return {
        ("otlp", of): Amount(
            sum(signal is of for signal, _ in batches), sum(items for signal, items in batches if signal is of)
        )
        for of in Signal
    }


EVENTS = ("deliver", "enqueue", "wait", "release", "drain", "fail", "bury", "restart")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(EVENTS),
            st.sampled_from([Signal.TRACES, Signal.LOGS]),
            st.integers(0, 50),
            st.integers(0, 9),
        ),
        max_size=30,
    )
)
def test_accepted_is_what_was_sent_rejected_held_queued_and_buried_after_any_events(metrics, events):
    """From the page alone, for spans and for log records, restarts included (F18)."""
    stage = Stage()
    for name, *arguments in events:
        getattr(stage, name)(*arguments)
    found = scraped(metrics, stage.reading())

    for noun in NOUNS.values():

        def total(metric: str, noun: str = noun) -> float:
            return sum(found[f"enricher_{metric.format(noun)}"].values())

        came = total("receiver_accepted_{}_total") + total("recovered_{}_total")
        gone = total("exporter_sent_{}_total") + total("exporter_rejected_{}_total")
        kept = total("exporter_queue_{}") + total("dead_letter_{}")
        assert came == gone + kept + (total("hold_{}") if noun == "spans" else 0)
