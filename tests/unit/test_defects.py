"""What instrumentations are known to write wrong: by version, and by the run's own answer."""

import pytest

from enricher import defects
from enricher.cli.show import explanation
from enricher.defects import (
    DOUBTFUL,
    OVERRIDDEN_MODEL,
    PARTIAL_STREAM_USAGE,
    SWAPPED_USAGE,
    WORDS,
    ZERO_STREAM_USAGE,
)
from enricher.outcome import Reason
from enricher.scan import Settings
from enricher.write import Policy
from tests.support.build import (
    MODEL,
    OPENAI_SCOPE,
    OPENLLMETRY_VERSIONS,
    a_run_payload,
    an_http_span,
    as_json,
    attributes,
    in_world,
    items_of,
    openllmetry_span,
    signals,
)
from tests.support.families import langchain_span

REPAIR = Settings(policy=Policy(repair=True))
RUN, STREAM = "openai.assistant.run", "openai.assistant.run_stream"


def outcome_of(item, *others, settings=None):
    processed = in_world(signals([item, *others]), settings)[0]
    return processed.outcomes[0], attributes(items_of(processed.request)[0])


def shown(payload=None):
    return {"app.run": as_json(payload or a_run_payload())}


def test_every_defect_has_words_and_those_of_counts_are_known():
    assert {each.name for each in defects.COUNTS_DEFECTS} | DOUBTFUL <= WORDS.keys()


@pytest.mark.parametrize("version", ["0.47.5", "0.48.0", "0.50.1", "0.54.0", "0.55.0", ""])
def test_the_pair_is_swapped_from_0_48_to_0_54_on_run_spans_only(version):
    swapped = version in ("0.48.0", "0.50.1", "0.54.0")

    assert (SWAPPED_USAGE in defects.suspected((OPENAI_SCOPE, version), RUN, (5, 6))) is swapped
    assert defects.suspected((OPENAI_SCOPE, version), STREAM, (5, 6)) == ()
    assert defects.suspected(("acme.openai", version), RUN, (5, 6)) == ()


def test_evidence_confirms_what_the_version_lets_suspect():
    scope = (OPENAI_SCOPE, "0.50.1")

    assert defects.confirmed(scope, RUN, (340, 1200), (1200, 340)) == (SWAPPED_USAGE,)
    assert defects.confirmed(scope, RUN, (1200, 340), (1200, 340)) == ()
    assert defects.confirmed(scope, RUN, (340, 340), (340, 340)) == ()
    assert defects.confirmed((OPENAI_SCOPE, "0.62.4"), RUN, (340, 1200), (1200, 340)) == ()


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ((0, 0), (ZERO_STREAM_USAGE,)),
        ((700, 90), (PARTIAL_STREAM_USAGE,)),
        ((1200, 90), (PARTIAL_STREAM_USAGE,)),
        ((1200, 340), ()),
        ((1300, 90), ()),
    ],
)
def test_a_stream_that_was_left_early_carries_what_its_first_steps_took(own, found):
    assert defects.confirmed((OPENAI_SCOPE, "0.62.4"), STREAM, own, (1200, 340)) == found


@pytest.mark.parametrize(
    ("own", "run", "differs"),
    [
        ("gpt-4-turbo", "gpt-4o-mini", True),
        ("gpt-4o-mini", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-2024-08-06", False),
        ("gpt-4o-2024-08-06", "gpt-4o", False),
    ],
)
def test_a_snapshot_and_the_name_that_stands_for_it_are_one_model(own, run, differs):
    assert defects.has_other_model(OPENAI_SCOPE, own, run) is differs
    assert not defects.has_other_model("acme.openai", own, run)


@pytest.mark.parametrize("version", OPENLLMETRY_VERSIONS)
@pytest.mark.parametrize("repair", [False, True])
def test_the_assistants_model_is_put_right_where_the_run_had_another(version, repair):
    item = openllmetry_span(version, more=shown(a_run_payload(model="o3-mini")))
    outcome, after = outcome_of(item, settings=REPAIR if repair else None)
    key = "llm.request.model" if version == "0.15.0" else "gen_ai.request.model"

    assert OVERRIDDEN_MODEL in outcome.defects
    assert OVERRIDDEN_MODEL in outcome.confirmed
    assert after[key] == ("o3-mini" if repair else MODEL)
    assert (f"{key}={MODEL}" in after.get("enricher.replaced", [])) is repair


def test_a_model_is_not_put_right_by_what_is_only_unique():
    item = openllmetry_span("0.33.12", number=1)
    outcome, after = outcome_of(item, an_http_span(a_run_payload(model="o3-mini"), start=18), settings=REPAIR)

    assert outcome.defects == outcome.confirmed == (OVERRIDDEN_MODEL,)
    assert after["gen_ai.request.model"] == MODEL
    assert outcome.replaced == ()


def test_a_model_that_is_put_right_is_not_carried_on():
    """0.15.0 writes keys of its own, beside which those asked for lack; one span says one thing."""
    item = openllmetry_span("0.15.0", more=shown(a_run_payload(model="o3-mini")))
    _, kept = outcome_of(item)
    _, repaired = outcome_of(item, settings=REPAIR)

    assert (kept["llm.request.model"], kept["gen_ai.request.model"]) == (MODEL, MODEL)
    assert (repaired["llm.request.model"], repaired["gen_ai.request.model"]) == ("o3-mini", "o3-mini")


@pytest.mark.parametrize("own", [(0, 0), (700, 90)])
def test_counts_of_streams_are_put_right_where_an_id_ties_the_run(own):
    item = openllmetry_span("0.62.4", stream=True, usage=own, more=shown())
    kept, before = outcome_of(item)
    repaired, after = outcome_of(item, settings=REPAIR)

    assert (kept.reason, before["gen_ai.usage.input_tokens"]) == (Reason.USAGE_CONFLICT, own[0])
    assert (repaired.reason, after["gen_ai.usage.input_tokens"]) == (Reason.ENRICHED, 1200)
    assert kept.confirmed == repaired.confirmed != ()
    assert after["enricher.replaced"] == [
        f"gen_ai.usage.{k}_tokens={v}" for k, v in zip(("input", "output"), own, strict=True)
    ]


def test_a_confirmed_defect_is_told_as_such():
    item = openllmetry_span("0.50.1", more=shown())
    told, alone = (dict(explanation(outcome_of(each)[0]))["defect"] for each in (item, openllmetry_span("0.50.1")))

    assert told == f"{alone}, and the run's counts or model show it"


def test_a_frameworks_name_stays_and_is_told():
    outcome, after = outcome_of(langchain_span(), settings=REPAIR)

    assert outcome.defects == (defects.FRAMEWORK_AS_PROVIDER,)
    assert (after["gen_ai.provider.name"], after["gen_ai.system"]) == ("langchain", "openai")
