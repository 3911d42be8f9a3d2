"""Coverage is counted by run, before and after, whatever the order."""

import random
import sys
from decimal import Decimal

import pytest

from enricher import prices
from enricher.audit import Audit, Defect, Duplicates, Gap
from enricher.coverage import ADVICE_WORDS, Advice, State, Tokens
from enricher.outcome import Outcome, Reason
from enricher.scan import Settings
from enricher.write import Policy
from tests.support.build import (
    BEGIN,
    MODEL,
    a_list,
    a_message_payload,
    a_run_payload,
    a_span,
    a_usage,
    an_http_span,
    as_json,
    in_world,
    openllmetry_span,
    run_id,
    signals,
)

OLD, SWAPPED, NEW = "0.33.12", "0.50.1", "0.62.4"
REPAIR = Settings(policy=Policy(repair=True))


def outcomes(*items, settings=None):
    return [outcome for each in in_world(signals(items), settings) for outcome in each.outcomes]


def report(found, price=lambda *_: None):
    audit = Audit()
    for each in found:
        audit.add(each)
    return audit.report(price)


def usage(row):
    return {state: count for state, count in row.usage.items() if count}


def a_final(**changed):
    return an_http_span(a_run_payload(**changed), start=18, end=18.5)


def test_a_run_that_evidence_fills_is_missing_before_and_inserted_after():
    total = report(outcomes(openllmetry_span(OLD), a_final(usage=a_usage(1200, 340, cached=64)))).total

    assert (total.spans, total.runs) == (1, 1)
    assert total.provider == {State.INSERTED: 1}
    assert total.model == {State.PRESENT: 1}
    assert usage(total) == {State.INSERTED: 1}
    assert total.tokens == Tokens(1200, 340, 1540, cached=64, reasoning=None)


def test_what_stood_on_the_span_is_present_though_a_total_is_added():
    total = report(outcomes(openllmetry_span(NEW))).total

    assert usage(total) == {State.PRESENT: 1}
    assert total.tokens == Tokens(1200, 340, 1540)


def test_a_genuine_zero_is_usage():
    total = report(outcomes(openllmetry_span(NEW, usage=(0, 0)))).total

    assert usage(total) == {State.PRESENT: 1}
    assert total.tokens.total == 0


def test_swapped_counts_are_doubtful_and_no_tokens():
    found = report(outcomes(openllmetry_span(SWAPPED)))

    assert usage(found.total) == {State.DOUBTFUL: 1}
    assert found.total.tokens == Tokens()
    assert found.defects == [Defect("swapped_usage", ("opentelemetry.instrumentation.openai.v1", SWAPPED), 1, 0)]
    assert found.gaps == [Gap(Advice.RECORD_RUN, usage=1)]


def test_swapped_counts_that_evidence_contradicts_are_doubtful_until_repaired():
    items = openllmetry_span(SWAPPED), an_http_span(a_list([a_message_payload()]), start=20), a_final()
    kept, repaired = report(outcomes(*items)), report(outcomes(*items, settings=REPAIR))

    assert usage(kept.total) == {State.DOUBTFUL: 1}
    assert kept.gaps == [Gap(Advice.REPAIR, usage=1)]
    assert usage(repaired.total) == {State.REPAIRED: 1}
    assert repaired.total.tokens[:3] == (1200, 340, 1540)
    assert (repaired.gaps, repaired.defects[0].repaired) == ([], 1)


def test_a_known_defect_is_no_doubt_where_evidence_agrees_with_the_span():
    items = openllmetry_span(SWAPPED, usage=(700, 700)), a_final(usage=(700, 700))

    assert usage(report(outcomes(*items)).total) == {State.PRESENT: 1}


def test_spans_of_one_run_count_once_and_the_repetition_is_told():
    """openllmetry writes a span for each listing of messages, with the same start."""
    twice = [openllmetry_span(NEW, number=1), openllmetry_span(NEW, number=2, trace=2)]
    found = report(outcomes(*twice))

    assert (found.total.spans, found.total.runs) == (2, 1)
    assert found.total.tokens.total == 1540
    assert found.total.duplicates_before == found.total.duplicates == Duplicates(1, 1, 1540)


def test_a_listing_before_the_end_is_the_same_run_as_the_one_after_it():
    early = openllmetry_span(NEW, number=1, usage=None, end=12)
    found = report(outcomes(early, openllmetry_span(NEW, number=2, trace=2)))

    assert (found.total.spans, found.total.runs, usage(found.total)) == (2, 1, {State.PRESENT: 1})
    assert (found.total.duplicates, found.gaps) == (Duplicates(), [])


def test_spans_that_name_one_run_are_that_run_though_nothing_else_is_known_of_it():
    spans = [
        openllmetry_span(NEW, number=n, trace=n, start=10 + n, more={"gen_ai.response.id": run_id(1)}) for n in (1, 2)
    ]

    assert report(outcomes(*spans)).total.runs == 1


def test_starts_of_a_coarse_clock_tell_nothing():
    """Two runs may begin in one microsecond."""
    start = (1_000_000_000 - BEGIN % 1_000_000_000) / 1_000_000_000
    spans = [openllmetry_span(NEW, number=n, trace=n, start=start, end=start + 1) for n in (1, 2)]
    assert spans[0].span.start_time_unix_nano % 100 == 0

    assert report(outcomes(*spans)).total.runs == 2


def test_a_span_that_was_recorded_twice_is_one():
    found = outcomes(openllmetry_span(NEW, number=1))

    assert report(found * 2).total == report(found).total


def test_spans_that_cannot_be_decoded_are_runs_of_their_own():
    found = report([Outcome("", "", "", "tutor", "", "", Reason.SPAN_UNREADABLE)] * 2)

    assert (found.total.spans, found.total.runs) == (2, 2)
    assert found.gaps == [Gap(Advice.FIX_EXPORTER, usage=2, model=2, provider=2)]


def test_rows_are_by_service_instrumentation_and_version_and_model():
    found = report(
        outcomes(
            openllmetry_span(NEW, service="tutor", start=10),
            openllmetry_span(OLD, service="desk", start=30, trace=2),
            openllmetry_span(OLD, service="desk", start=50, trace=3, existing=True),
            a_span("openai.assistant.run", scope=("", ""), service="", start=70, trace=4),
        )
    )

    assert [(row.name, row.spans) for row in found.services] == [(("desk",), 2), (("",), 1), (("tutor",), 1)]
    assert [row.name for row in found.instrumentations] == [
        ("opentelemetry.instrumentation.openai.v1", OLD),
        ("", ""),
        ("opentelemetry.instrumentation.openai.v1", NEW),
    ]
    assert [(row.name, row.runs) for row in found.models] == [(("",), 2), ((MODEL,), 2)]


def test_a_scope_without_version_that_ends_in_a_word_has_none():
    found = [Outcome("1", "1", "n", "s", scope, "r", Reason.PAYLOAD_ABSENT) for scope in ("my scope", "my scope v1")]

    assert {row.name for each in found for row in report([each]).instrumentations} == {
        ("my scope", ""),
        ("my scope", "v1"),
    }


CUT = as_json(a_run_payload())[:400]
GAPS = {
    Advice.RECORD_RUN: [openllmetry_span(OLD)],
    Advice.RECORD_STREAM: [openllmetry_span(OLD, stream=True)],
    Advice.RECORD_LAST_POLL: [openllmetry_span(OLD), a_final(status="in_progress", usage=None)],
    Advice.LIFT_LIMIT: [openllmetry_span(OLD), an_http_span(CUT, start=18)],
    Advice.NO_USAGE: [openllmetry_span(OLD), a_final(status="expired", usage=None)],
    Advice.RECORD_OWN_RUN: [openllmetry_span(OLD), an_http_span(a_run_payload(), start=2, end=2.5)],
    Advice.RECORD_MESSAGES: [openllmetry_span(OLD), a_final(), a_final(number=2, thread=2, usage=(9, 9))],
    Advice.LOOK: [openllmetry_span(OLD), a_final(), a_final(usage=(9, 9))],
}


@pytest.mark.parametrize("advice", GAPS, ids=str)
def test_what_is_missing_is_told_with_what_would_give_it(advice):
    found = report(outcomes(*GAPS[advice]))

    assert [(gap.advice, gap.usage) for gap in found.gaps] == [(advice, 1)]


def test_usage_without_its_run_leaves_the_model_unknown():
    parent = a_span("ask", {"answer": as_json(a_usage())}, number=1, start=9, end=21)
    found = report(outcomes(openllmetry_span(OLD, existing=True, parent=1), parent))

    assert found.gaps == [Gap(Advice.RECORD_WHOLE_RUN, model=1)]


def test_every_advice_has_words():
    assert ADVICE_WORDS.keys() == set(Advice)


def test_the_order_of_outcomes_changes_nothing():
    items = [
        openllmetry_span(version, number=n, trace=1 + n % 3, start=10 + n // 2)
        for n, version in enumerate([NEW, NEW, OLD, OLD, SWAPPED, SWAPPED, NEW], 1)
    ]
    found = outcomes(*items)
    expected = report(found)
    for seed in range(20):
        random.Random(seed).shuffle(found)
        assert report(found) == expected


# ---- prices ------------------------------------------------------------------------------------------------------


def test_a_price_is_asked_once_a_run_and_never_guessed():
    asked = []

    def price(*question):
        asked.append(question)
        return Decimal("0.25") if question[1] == MODEL else None

    found = report(
        outcomes(
            openllmetry_span(NEW, start=10),
            openllmetry_span(NEW, start=10, trace=2),
            openllmetry_span(NEW, start=30, trace=3, existing=True),
            openllmetry_span(SWAPPED, start=50, trace=4),
        ),
        price,
    )

    assert asked == [("openai", MODEL, Tokens(1200, 340, 1540), asked[0][3]), ("openai", "", asked[1][2], asked[1][3])]
    assert found.total.cost == (Decimal("0.25"), 1, 1, 1)
    assert next(row for row in found.models if not row.name[0]).cost == (None, 0, 1, 0)


def test_known_models_have_a_price_and_cached_tokens_make_it_less():
    price, version = prices.load()
    full = price("openai", MODEL, Tokens(1_000_000, 0, 1_000_000), BEGIN)

    assert full > price("openai", MODEL, Tokens(1_000_000, 0, 1_000_000, cached=500_000), BEGIN) > 0
    assert price("azure.ai.openai", MODEL, Tokens(1_000_000, 0, 1_000_000), 0) > 0
    assert version


@pytest.mark.parametrize(
    ("provider", "model", "tokens"),
    [
        ("langchain", MODEL, Tokens(10, 10, 20)),
        ("", MODEL, Tokens(10, 10, 20)),
        ("openai", "a model of ours", Tokens(10, 10, 20)),
        ("openai", "", Tokens(10, 10, 20)),
        ("openai", MODEL, Tokens(10, 10, 20, cached=11)),
    ],
)
def test_what_has_no_price_is_unknown_and_not_nothing(provider, model, tokens):
    assert prices.load()[0](provider, model, tokens, BEGIN) is None


def test_without_the_extra_there_are_no_prices(monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)

    assert prices.load() is None
