"""What is inserted into a candidate, byte by byte, and what is left as it is."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from enricher import write
from enricher.evidence.objects import Usage
from enricher.outcome import Considered, Reason, Rung
from enricher.rules import Rule
from enricher.semconv import KEYS, Convention, Fact
from enricher.verdict import Resolution
from enricher.write import Change, Policy
from tests.support.build import (
    MODEL,
    OPENAI_SCOPE,
    OPENLLMETRY_VERSIONS,
    a_run_payload,
    a_span,
    an_http_span,
    assistant_id,
    attributes,
    candidates_and_index,
    described,
    openllmetry_span,
    run_id,
    thread_id,
)

BOTH = Policy()
LEGACY = Policy((Convention.LEGACY,))
CURRENT = Policy((Convention.CURRENT,))
PROVENANCE = Policy(provenance=True)
REPAIR = Policy(repair=True)
PLACE = "attribute http.response.body of span GET"
RULE = Rule("r")
DONE = Usage(1200, 340, 1540, 64, 32)
PLAIN = Usage(1200, 340, 1540)

IDS = {
    "gen_ai.response.id": run_id(),
    "gen_ai.conversation.id": thread_id(),
    "gen_ai.agent.id": assistant_id(),
}
COUNTS = {
    "gen_ai.usage.prompt_tokens": 1200,
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.completion_tokens": 340,
    "gen_ai.usage.output_tokens": 340,
    "gen_ai.usage.total_tokens": 1540,
}
DETAILS = {
    "gen_ai.usage.cache_read_input_tokens": 64,
    "gen_ai.usage.cache_read.input_tokens": 64,
    "gen_ai.usage.reasoning.output_tokens": 32,
}
SYSTEM = {"gen_ai.system": "openai", "gen_ai.provider.name": "openai"}
MODELS = {"gen_ai.request.model": MODEL, "gen_ai.response.model": MODEL}


def a_run(payload=None, url=None):
    """Return what is known of a run of which one payload was recorded."""
    _, index = candidates_and_index([an_http_span(payload or a_run_payload("expired", None), url=url)])
    return index.runs[run_id()]


def resolved(usage=DONE, rung=Rung.RUN_ID, url=None):
    return Resolution(Reason.ENRICHED, rung, a_run(url=url), usage, PLACE, (Considered(run_id(), PLACE, "decided"),))


ABSENT = Resolution(Reason.PAYLOAD_ABSENT)
BARE = Resolution(Reason.ENRICHED, Rung.BARE_USAGE, usage=PLAIN, place=PLACE)


def planned(item, resolution, policy=BOTH, *, rule=RULE, azure=False):
    found = described(item, policy.conventions, rule)
    return write.plan(found, resolution, policy, azure=azure)


def inserted(item, resolution, policy=BOTH, **options):
    return dict(planned(item, resolution, policy, **options).inserted)


def written(item, resolution, policy=BOTH, **options):
    """Return what the span says after writing; the bytes that came in are checked to be the beginning."""
    change = planned(item, resolution, policy, **options)
    out = write.apply(item.raw, change, policy, resolution.place)
    if not change.replaced:
        assert out.startswith(item.raw)
    return attributes(out)


def pick(found, like):
    """Return the part of what was found that has the keys of `like`."""
    return {key: found[key] for key in like if key in found}


def run_span(*pairs, version="0.62.4", name="openai.assistant.run"):
    return a_span(name, pairs, scope=(OPENAI_SCOPE, version))


# ---- what is inserted


def test_a_span_that_says_nothing_gets_everything_in_both_vocabularies():
    assert inserted(run_span(), resolved()) == {**SYSTEM, **MODELS, **COUNTS, **DETAILS, **IDS}


def test_the_legacy_vocabulary_alone():
    assert inserted(run_span(), resolved(), LEGACY) == {
        "gen_ai.system": "openai",
        **MODELS,
        "gen_ai.usage.prompt_tokens": 1200,
        "gen_ai.usage.completion_tokens": 340,
        "gen_ai.usage.total_tokens": 1540,
        "gen_ai.usage.cache_read_input_tokens": 64,
    }


def test_the_current_vocabulary_alone():
    assert inserted(run_span(), resolved(), CURRENT) == {
        "gen_ai.provider.name": "openai",
        **MODELS,
        "gen_ai.usage.input_tokens": 1200,
        "gen_ai.usage.output_tokens": 340,
        "gen_ai.usage.total_tokens": 1540,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.reasoning.output_tokens": 32,
        **IDS,
    }


@pytest.mark.parametrize("version", OPENLLMETRY_VERSIONS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("existing", [False, True])
def test_spans_of_every_version_are_completed_and_nothing_on_them_changes(version, stream, existing):
    item = openllmetry_span(version, stream=stream, existing=existing)
    before = attributes(item.raw)
    after = written(item, resolved())

    assert pick(after, before) == before
    expected = {**SYSTEM, **MODELS, **COUNTS, **DETAILS, **IDS}
    if version in ("0.48.0", "0.50.1") and not stream:
        # What the version swapped is left alone, and its sum is right.
        for key in (*COUNTS, *DETAILS):
            del expected[key]
        expected["gen_ai.usage.total_tokens"] = 1540
    assert pick(after, expected) == expected
    assert after.keys() - before.keys() <= {key for keys in KEYS.values() for key in keys.values()}


def test_a_key_is_inserted_once_where_both_vocabularies_share_it():
    keys = [key for key, _ in planned(run_span(), resolved()).inserted]

    assert len(keys) == len(set(keys))


def test_details_that_the_evidence_does_not_hold_are_not_inserted():
    found = inserted(run_span(), resolved(PLAIN))

    assert pick(found, COUNTS) == COUNTS
    assert not found.keys() & DETAILS.keys()


def test_genuine_zeros_are_inserted():
    found = inserted(run_span(), resolved(Usage(0, 0, 0, 0, 0)))

    assert all(found[key] == 0 for key in (*COUNTS, *DETAILS))


def test_zeros_on_the_span_that_the_evidence_confirms_are_carried_on():
    item = openllmetry_span("0.62.4", stream=True, usage=(0, 0))

    assert inserted(item, resolved(Usage(0, 0, 0)))["gen_ai.usage.prompt_tokens"] == 0


def test_a_bare_usage_object_gives_counts_and_no_ids_or_models():
    assert inserted(run_span(), BARE) == {**SYSTEM, **COUNTS}


def test_a_run_without_usage_gives_its_ids_and_models():
    change = planned(run_span(), Resolution(Reason.RUN_IN_PROGRESS, Rung.RUN_ID, a_run()))

    assert dict(change.inserted) == {**SYSTEM, **MODELS, **IDS}
    assert change.reason is Reason.RUN_IN_PROGRESS


def test_what_a_run_does_not_say_is_not_inserted():
    run = a_run(a_run_payload("expired", None, thread_id=..., assistant_id=..., model=...))
    found = inserted(run_span(), Resolution(Reason.USAGE_ABSENT, Rung.RUN_ID, run))

    assert found == {**SYSTEM, "gen_ai.response.id": run_id()}


# ---- what the span says itself


def test_without_evidence_the_span_gets_the_other_vocabulary_from_its_own_values():
    change = planned(openllmetry_span("0.62.4"), ABSENT)

    assert change.reason is Reason.FROM_SPAN
    assert dict(change.inserted) == {
        "gen_ai.system": "openai",
        "gen_ai.usage.prompt_tokens": 1200,
        "gen_ai.usage.completion_tokens": 340,
        "gen_ai.usage.total_tokens": 1540,
    }


def test_details_and_ids_of_the_span_are_carried_on_as_well():
    item = run_span(
        ("gen_ai.usage.cache_read_input_tokens", 5),
        ("gen_ai.usage.reasoning_tokens", 6),
        ("gen_ai.thread.run.id", run_id(7)),
        ("gen_ai.thread.id", thread_id(7)),
        ("llm.request.model", "m"),
    )

    assert inserted(item, ABSENT) == {
        **SYSTEM,
        "gen_ai.request.model": "m",
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 6,
        "gen_ai.response.id": run_id(7),
        "gen_ai.conversation.id": thread_id(7),
    }


def test_what_the_span_says_goes_before_what_the_evidence_says():
    """A run may override its assistant's model; the span's word is left, and one span says one thing."""
    item = run_span(("llm.request.model", "gpt-4-turbo"), ("gen_ai.response.id", "resp"))
    found = inserted(item, resolved())

    assert (found["gen_ai.request.model"], found["gen_ai.response.model"]) == ("gpt-4-turbo", MODEL)
    assert "gen_ai.response.id" not in found


def test_half_a_pair_has_no_total():
    change = planned(run_span(("gen_ai.usage.prompt_tokens", 7)), ABSENT)

    assert dict(change.inserted) == {**SYSTEM, "gen_ai.usage.input_tokens": 7}
    assert change.reason is Reason.PAYLOAD_ABSENT


@pytest.mark.parametrize("value", ["", "1200", 1.5, None, [1]])
def test_a_key_that_stands_with_another_kind_of_value_is_left_as_it_is(value):
    item = run_span(("gen_ai.usage.prompt_tokens", value), ("gen_ai.system", value))
    found = inserted(item, resolved())

    assert not found.keys() & {"gen_ai.usage.prompt_tokens", "gen_ai.system"}
    assert found["gen_ai.usage.input_tokens"] == 1200


def test_counts_below_zero_are_not_carried_on():
    item = run_span(("gen_ai.usage.prompt_tokens", -5), ("gen_ai.usage.completion_tokens", 3))
    found = inserted(item, ABSENT)

    assert not found.keys() & {"gen_ai.usage.input_tokens", "gen_ai.usage.total_tokens"}


def test_counts_whose_sum_is_no_integer_of_64_bits_have_no_total():
    item = run_span(("gen_ai.usage.prompt_tokens", 1 << 62), ("gen_ai.usage.completion_tokens", 1 << 62))

    assert "gen_ai.usage.total_tokens" not in written(item, ABSENT)


def test_a22_a_key_beyond_what_is_read_is_not_inserted_again():
    filler = [(f"k{n}", n) for n in range(5000)]

    written(run_span(*filler, ("gen_ai.system", "openai"), ("gen_ai.usage.total_tokens", 5)), resolved())


# ---- provider


@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({"gen_ai.system": "openai"}, {"gen_ai.provider.name": "openai"}),
        ({"gen_ai.system": "az.ai.openai"}, {"gen_ai.provider.name": "azure.ai.openai"}),
        ({"gen_ai.system": "az.ai.inference"}, {"gen_ai.provider.name": "azure.ai.inference"}),
        ({"gen_ai.system": "vendor"}, {"gen_ai.provider.name": "vendor"}),
        ({"gen_ai.provider.name": "azure.ai.openai"}, {"gen_ai.system": "az.ai.openai"}),
        ({"gen_ai.provider.name": "vendor"}, {"gen_ai.system": "vendor"}),
        ({"gen_ai.provider.name": "vendor", "gen_ai.system": "other"}, {}),
        ({}, SYSTEM),
    ],
)
def test_system_and_provider_say_the_same(own, found):
    assert inserted(run_span(*own.items()), ABSENT) == found


AZURE = {"gen_ai.system": "az.ai.openai", "gen_ai.provider.name": "azure.ai.openai"}


@pytest.mark.parametrize(
    ("pairs", "resolution", "azure"),
    [
        ((("server.address", "x.openai.azure.com"),), ABSENT, False),
        ((), resolved(url="https://tutors.openai.azure.com/openai/threads"), False),
        ((), ABSENT, True),
    ],
)
def test_azure_is_told_by_the_spans_address_the_runs_or_the_traces(pairs, resolution, azure):
    assert pick(inserted(run_span(*pairs), resolution, azure=azure), AZURE) == AZURE


def test_what_the_span_says_of_its_provider_goes_before_azures_address():
    """A proxy may stand at the address."""
    found = inserted(run_span(("gen_ai.system", "openai"), ("server.address", "x.openai.azure.com")), ABSENT)

    assert found["gen_ai.provider.name"] == "openai"


def test_a_rule_of_the_user_names_system_and_provider():
    rule = Rule("own", span_name="*", system="acme", provider="acme.llm")

    assert inserted(run_span(), ABSENT, rule=rule) == {"gen_ai.system": "acme", "gen_ai.provider.name": "acme.llm"}
    assert inserted(run_span(("server.address", "x.openai.azure.com")), ABSENT, rule=rule) == AZURE


# ---- reasons


@pytest.mark.parametrize("reason", [each for each in Reason if each is not Reason.PAYLOAD_ABSENT])
def test_the_reason_is_the_ladders(reason):
    assert planned(openllmetry_span("0.33.12"), Resolution(reason)).reason is reason


def full_span(**counts):
    keys = sorted({key for keys in KEYS.values() for key in keys.values()})
    return run_span(*((key, (COUNTS | counts).get(key, 0 if ".usage." in key else MODEL)) for key in keys))


def test_a_span_that_lacks_nothing_gets_nothing():
    assert planned(full_span(), resolved(PLAIN)) == Change(Reason.ALREADY_PRESENT)
    assert planned(full_span(), ABSENT) == Change(Reason.ALREADY_PRESENT)


def test_a_span_that_lacks_nothing_and_differs_from_its_run_is_a_conflict():
    assert planned(full_span(), resolved(Usage(5, 6, 11))) == Change(Reason.USAGE_CONFLICT)


def test_a_span_with_counts_and_without_evidence_is_mended_from_itself():
    assert planned(openllmetry_span("0.45.6"), ABSENT).reason is Reason.FROM_SPAN


def test_a_span_from_which_nothing_follows_says_why_there_is_no_more():
    keys = {**SYSTEM, **COUNTS}

    assert planned(run_span(*keys.items()), ABSENT) == Change(Reason.PAYLOAD_ABSENT)


def test_a_span_whose_counts_are_doubtful_is_not_mended_from_itself():
    change = planned(openllmetry_span("0.50.1"), ABSENT)

    assert change.reason is Reason.PAYLOAD_ABSENT
    assert dict(change.inserted) == {"gen_ai.provider.name": "openai", "gen_ai.usage.total_tokens": 1540}


# ---- conflicts and defects, kept


def test_counts_that_differ_from_the_runs_are_left_and_not_carried_on():
    change = planned(openllmetry_span("0.62.4", usage=(700, 90)), resolved())

    assert change.reason is Reason.USAGE_CONFLICT
    assert dict(change.inserted) == {"gen_ai.system": "openai", **IDS}


def test_a_total_that_differs_from_the_runs_is_a_conflict():
    change = planned(run_span(("gen_ai.usage.total_tokens", 5)), resolved())

    assert change.reason is Reason.USAGE_CONFLICT
    assert not dict(change.inserted).keys() & COUNTS.keys()


def test_a_swapped_pair_keeps_its_sum():
    change = planned(openllmetry_span("0.50.1"), resolved())

    assert change.reason is Reason.USAGE_CONFLICT
    assert {key: value for key, value in change.inserted if key in COUNTS} == {"gen_ai.usage.total_tokens": 1540}


def test_a_swapped_pair_whose_sum_is_not_the_runs_has_no_total():
    change = planned(openllmetry_span("0.50.1"), resolved(Usage(5, 6, 11)))

    assert not dict(change.inserted).keys() & COUNTS.keys()


def test_a_pair_of_equal_counts_is_its_own_swap():
    change = planned(openllmetry_span("0.50.1", usage=(500, 500)), resolved(Usage(500, 500, 1000)))

    assert change.reason is Reason.ENRICHED
    assert dict(change.inserted)["gen_ai.usage.prompt_tokens"] == 500


@pytest.mark.parametrize("resolution", [ABSENT, resolved()])
def test_zeros_of_a_stream_are_not_carried_on(resolution):
    found = inserted(openllmetry_span("0.34.0", stream=True, usage=(0, 0)), resolution)

    assert not found.keys() & COUNTS.keys()


def test_partial_counts_of_a_stream_are_left():
    change = planned(openllmetry_span("0.34.0", stream=True, usage=(700, 90)), resolved())

    assert (change.reason, dict(change.inserted).keys() & COUNTS.keys()) == (Reason.USAGE_CONFLICT, set())


def test_keys_that_disagree_are_left_and_not_carried_on():
    item = run_span(
        ("gen_ai.usage.prompt_tokens", 7), ("gen_ai.usage.input_tokens", 8), ("gen_ai.usage.output_tokens", 9)
    )

    assert inserted(item, ABSENT) == SYSTEM


# ---- repair


@pytest.mark.parametrize("rung", [Rung.PAYLOAD, Rung.RUN_ID, Rung.MESSAGE_ID])
def test_repair_overwrites_what_identity_contradicts_and_keeps_the_old_values(rung):
    item = openllmetry_span("0.50.1")
    found = written(item, resolved(rung=rung), REPAIR)

    assert pick(found, COUNTS) == COUNTS
    assert found["enricher.replaced"] == ["gen_ai.usage.input_tokens=340", "gen_ai.usage.output_tokens=1200"]
    assert planned(item, resolved(rung=rung), REPAIR).reason is Reason.ENRICHED


@pytest.mark.parametrize(
    "rung", [Rung.THREAD_ID, Rung.TEXT, Rung.TRACE, Rung.BARE_USAGE, Rung.SERVICE, Rung.SAME_START]
)
def test_repair_does_not_believe_uniqueness(rung):
    item = openllmetry_span("0.50.1")
    found = written(item, resolved(rung=rung), REPAIR)

    assert pick(found, attributes(item.raw)) == attributes(item.raw)
    assert "enricher.replaced" not in found
    assert planned(item, resolved(rung=rung), REPAIR).reason is Reason.USAGE_CONFLICT


def test_repair_leaves_what_agrees_and_completes_the_rest():
    item = run_span(("gen_ai.usage.prompt_tokens", 1200), ("gen_ai.usage.completion_tokens", 1))
    change = planned(item, resolved(), REPAIR)

    assert change.replaced == (("gen_ai.usage.completion_tokens", 1),)
    assert pick(written(item, resolved(), REPAIR), {**COUNTS, **DETAILS}) == {**COUNTS, **DETAILS}


def test_repair_of_a_span_without_conflict_is_inserting():
    item = openllmetry_span("0.62.4")

    assert planned(item, resolved(), REPAIR) == planned(item, resolved())


def test_repair_overwrites_zeros_of_a_stream():
    item = openllmetry_span("0.34.0", stream=True, usage=(0, 0))
    found = written(item, resolved(), REPAIR)

    assert pick(found, COUNTS) == COUNTS
    assert set(found["enricher.replaced"]) == {"gen_ai.usage.prompt_tokens=0", "gen_ai.usage.completion_tokens=0"}


def test_repair_overwrites_in_whichever_keys_the_counts_stand():
    item = run_span(("llm.usage.prompt_tokens", 5), ("llm.usage.completion_tokens", 6), ("llm.usage.total_tokens", 11))
    found = written(item, resolved(), REPAIR)

    assert (found["llm.usage.prompt_tokens"], found["llm.usage.completion_tokens"]) == (1200, 340)
    assert found["llm.usage.total_tokens"] == 1540
    assert pick(found, COUNTS) == COUNTS


def test_repair_with_one_vocabulary_repairs_the_keys_that_stand_and_adds_no_others():
    found = written(openllmetry_span("0.50.1"), resolved(), LEGACY_REPAIR)

    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (1200, 340)
    assert found["gen_ai.usage.prompt_tokens"] == 1200
    assert "gen_ai.provider.name" not in found


LEGACY_REPAIR = dataclasses.replace(LEGACY, repair=True)


def test_repair_keeps_the_old_values_of_keys_that_disagreed():
    item = run_span(
        ("gen_ai.usage.prompt_tokens", 7), ("gen_ai.usage.input_tokens", 8), ("gen_ai.usage.completion_tokens", 9)
    )
    found = written(item, resolved(), REPAIR)

    assert pick(found, COUNTS) == COUNTS
    assert sorted(found["enricher.replaced"]) == [
        "gen_ai.usage.completion_tokens=9",
        "gen_ai.usage.input_tokens=8",
        "gen_ai.usage.prompt_tokens=7",
    ]


def test_repair_settles_keys_that_disagree_even_where_nothing_else_differs():
    item = run_span(
        ("gen_ai.usage.prompt_tokens", 1200), ("gen_ai.usage.input_tokens", 8), ("gen_ai.usage.completion_tokens", 340)
    )
    found = written(item, resolved(), REPAIR)

    assert found["gen_ai.usage.input_tokens"] == 1200
    assert found["enricher.replaced"] == ["gen_ai.usage.input_tokens=8"]


@pytest.mark.parametrize("value", ["7", 7.5, None])
def test_repair_keeps_the_old_value_whatever_its_kind_or_leaves_it(value):
    item = run_span(("gen_ai.usage.prompt_tokens", value), ("gen_ai.usage.completion_tokens", 9))
    found = written(item, resolved(), REPAIR)

    assert "gen_ai.usage.prompt_tokens=-1" not in found["enricher.replaced"]
    assert found["gen_ai.usage.input_tokens"] == 1200


def test_repair_of_a_span_that_lacks_nothing_is_no_presence():
    change = planned(
        full_span(**{"gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.input_tokens": 5}), resolved(PLAIN), REPAIR
    )

    assert change.reason is Reason.ENRICHED
    assert dict(change.replaced) == {"gen_ai.usage.prompt_tokens": 5, "gen_ai.usage.input_tokens": 5}


def test_a21_repair_overwrites_a_key_wherever_it_stands_and_leaves_the_number_of_attributes():
    item = run_span(
        ("gen_ai.usage.input_tokens", 5), ("gen_ai.usage.output_tokens", 6), ("gen_ai.usage.input_tokens", 7)
    )
    out = write.apply(item.raw, planned(item, resolved(), REPAIR), REPAIR, PLACE)
    values = [
        each.value.int_value for each in Span.FromString(out).attributes if each.key == "gen_ai.usage.input_tokens"
    ]

    assert values == [1200, 1200]


def test_repair_keeps_unknown_fields_of_the_span():
    item = openllmetry_span("0.50.1")
    unknown = b"\xfa\x06\x05hello"
    out = write.apply(item.raw + unknown, planned(item, resolved(), REPAIR), REPAIR, PLACE)

    assert unknown in out


@pytest.mark.parametrize("version", OPENLLMETRY_VERSIONS)
@pytest.mark.parametrize(
    "policy", [BOTH, LEGACY, CURRENT, PROVENANCE, REPAIR, dataclasses.replace(REPAIR, provenance=True)]
)
@pytest.mark.parametrize("resolution", [resolved(), resolved(Usage(5, 6, 11, 1, 1)), ABSENT, BARE])
def test_writing_twice_is_writing_once(version, policy, resolution):
    item = openllmetry_span(version)
    once = write.apply(item.raw, planned(item, resolution, policy), policy, resolution.place)
    mended = dataclasses.replace(item, message=Span.FromString(once))

    assert write.apply(once, planned(mended, resolution, policy), policy, resolution.place) == once


# ---- provenance


def test_provenance_says_what_was_inserted_why_and_from_where():
    item = openllmetry_span("0.62.4", existing=True)
    found = written(item, resolved(), PROVENANCE)

    assert found["enricher.inserted"] == [key for key, _ in planned(item, resolved(), PROVENANCE).inserted]
    assert (found["enricher.reason"], found["enricher.evidence.place"]) == ("enriched", PLACE)


def test_provenance_without_evidence_has_no_place():
    found = written(openllmetry_span("0.62.4"), ABSENT, PROVENANCE)

    assert found["enricher.reason"] == "from_span"
    assert "enricher.evidence.place" not in found


def test_without_provenance_nothing_is_said():
    assert not [key for key in written(openllmetry_span("0.62.4"), resolved()) if key.startswith("enricher.")]


def test_where_nothing_is_inserted_no_provenance_is_either():
    item = full_span()

    assert write.apply(item.raw, planned(item, resolved(PLAIN), PROVENANCE), PROVENANCE, PLACE) == item.raw


def test_provenance_of_a_repair_names_what_was_overwritten_too():
    found = written(openllmetry_span("0.50.1"), resolved(), dataclasses.replace(REPAIR, provenance=True))

    assert {"gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"} <= set(found["enricher.inserted"])
    assert "enricher.replaced" in found


def test_a21_what_a_stage_in_front_of_this_one_said_is_not_said_again():
    first = openllmetry_span("0.33.12")
    between = write.apply(first.raw, planned(first, ABSENT, PROVENANCE), PROVENANCE, "")
    second = dataclasses.replace(first, message=Span.FromString(between))
    found = written(second, resolved(), PROVENANCE)

    assert found["enricher.reason"] == "payload_absent"
    assert pick(found, COUNTS) == COUNTS


def test_a21_a_repair_behind_another_repair_keeps_one_list_of_old_values():
    first = openllmetry_span("0.50.1")
    between = write.apply(first.raw, planned(first, resolved(), REPAIR), REPAIR, PLACE)
    second = dataclasses.replace(first, message=Span.FromString(between))

    written(second, resolved(Usage(5, 6, 11)), REPAIR)


# ---- bytes

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
ATTRIBUTES = st.lists(
    st.tuples(TEXTS, st.one_of(st.integers(-(2**63), 2**63 - 1), TEXTS, st.lists(TEXTS, max_size=3).map(tuple)))
)


@given(ATTRIBUTES)
def test_appended_bytes_are_what_protobuf_would_write(pairs):
    item = run_span(("own", 1))
    expected = Span.FromString(item.raw)
    expected.attributes.extend(run_span(*pairs).span.attributes)
    out = write.append(item.raw, pairs)

    assert out.startswith(item.raw)
    assert Span.FromString(out) == expected


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 16_383, 16_384, 70_000])
def test_lengths_of_more_than_one_byte_are_written(size):
    out = write.append(b"", [("k" * size, "v" * size), ("list", ("v" * size,))])

    assert attributes(out) == {"k" * size: "v" * size, "list": ["v" * size]}


def test_nothing_to_append_is_the_same_bytes():
    assert write.append(b"span", []) == b"span"
    assert write.apply(b"not even a span", Change(Reason.AMBIGUOUS), PROVENANCE, PLACE) == b"not even a span"


def test_every_fact_has_a_key():
    assert KEYS.keys() == set(Fact)


# ---- who serves the API, and other vocabularies


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"llm.provider": "openai", "llm.system": "openai"}, ("openai", "openai")),
        ({"llm.provider": "azure", "llm.system": "openai"}, ("az.ai.openai", "azure.ai.openai")),
        ({"llm.provider": "acme"}, ("acme", "acme")),
        ({"llm.system": "openai"}, ("openai", "openai")),
        ({"llm.provider": "openai", "server.address": "a.openai.azure.com"}, ("az.ai.openai", "azure.ai.openai")),
        ({"gen_ai.provider.name": "openai", "llm.provider": "azure"}, ("openai", None)),
        ({"gen_ai.system": "az.ai.agents"}, (None, "microsoft.foundry")),
        ({"gen_ai.provider.name": "microsoft.foundry"}, ("az.ai.agents", None)),
        ({"gen_ai.provider.name": "langchain"}, ("openai", None)),
        ({"gen_ai.provider.name": "LangChain", "llm.provider": "azure"}, ("az.ai.openai", None)),
        ({"gen_ai.system": "crewai"}, (None, "openai")),
        ({"gen_ai.system": "crewai", "gen_ai.provider.name": "openai"}, (None, None)),
    ],
)
def test_the_provider_is_what_is_named_and_no_framework(named, expected):
    found = inserted(run_span(*named.items()), ABSENT)

    assert (found.get("gen_ai.system"), found.get("gen_ai.provider.name")) == expected


def test_a_rule_without_provider_claims_none_before_the_run_is_known():
    rule = Rule("r", system="", provider="")

    assert pick(inserted(run_span(), ABSENT, rule=rule), SYSTEM) == {}
    assert pick(inserted(run_span(), BARE, rule=rule), SYSTEM) == {}
    assert pick(inserted(run_span(), resolved(), rule=rule), SYSTEM) == SYSTEM
    assert pick(inserted(run_span(), ABSENT, rule=rule, azure=True), SYSTEM) == {
        "gen_ai.system": "az.ai.openai",
        "gen_ai.provider.name": "azure.ai.openai",
    }


OPENINFERENCE_COUNTS = {
    "llm.token_count.prompt": 1200,
    "llm.token_count.completion": 340,
    "llm.token_count.total": 1540,
    "llm.token_count.prompt_details.cache_read": 64,
    "llm.token_count.completion_details.reasoning": 32,
    "llm.model_name": MODEL,
}


def test_what_stands_in_openinferences_vocabulary_is_carried_to_those_asked_for():
    found = inserted(run_span(*OPENINFERENCE_COUNTS.items()), ABSENT)

    assert found == {**SYSTEM, "gen_ai.response.model": MODEL, **COUNTS, **DETAILS}
    assert inserted(run_span(*OPENINFERENCE_COUNTS.items()), ABSENT, LEGACY) == {
        "gen_ai.system": "openai",
        "gen_ai.response.model": MODEL,
        **{key: COUNTS[key] for key in COUNTS if "put_tokens" not in key},
        "gen_ai.usage.cache_read_input_tokens": 64,
    }


def test_counts_in_openinferences_vocabulary_can_differ_from_the_runs():
    item = run_span(*(OPENINFERENCE_COUNTS | {"llm.token_count.prompt": 7}).items())

    assert planned(item, resolved()).reason is Reason.USAGE_CONFLICT
    assert written(item, resolved(rung=Rung.PAYLOAD), REPAIR)["llm.token_count.prompt"] == 1200
