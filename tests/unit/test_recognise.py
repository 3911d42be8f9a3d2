"""What a recognised span says, what it lacks, and by what it can be tied to a run."""

import pytest

from enricher import semconv
from enricher.defects import DISAGREEING_USAGE, SWAPPED_USAGE, ZERO_STREAM_USAGE
from enricher.otlp.attributes import MAX_ATTRIBUTES, digest
from enricher.rules import Rule
from enricher.semconv import KEYS, Convention, Fact
from tests.support import build
from tests.support.build import (
    ANSWER,
    MODEL,
    OPENAI_SCOPE,
    OPENLLMETRY_VERSIONS,
    QUESTION,
    SERVICE,
    a_run_payload,
    a_span,
    as_json,
    at,
    message_id,
    openllmetry_span,
    run_id,
    span_id,
    thread_id,
    trace_id,
)

RULE = Rule("r")
BOTH = (Convention.LEGACY, Convention.CURRENT)
PAIR = {Fact.PROMPT: 1200, Fact.COMPLETION: 340}
SWAPPED = {Fact.PROMPT: 340, Fact.COMPLETION: 1200}
MODELS = {Fact.REQUEST_MODEL: MODEL, Fact.RESPONSE_MODEL: MODEL}
SYSTEM = {Fact.SYSTEM: "openai"}
PROVIDER = {Fact.PROVIDER: "openai"}


def describe(item, conventions=BOTH):
    return build.described(item, conventions, RULE)


def described(*attributes, name="openai.assistant.run", version="0.62.4", **where):
    return describe(a_span(name, attributes, scope=(OPENAI_SCOPE, version), **where))


def test_a_candidate_knows_where_it_stands():
    found = describe(openllmetry_span("0.62.4", trace=2, number=3, parent=4, start=5, end=6))

    assert (found.trace_id, found.span_id, found.parent_span_id) == (trace_id(2), span_id(3), span_id(4))
    assert (found.start, found.end, found.service, found.rule) == (at(5), at(6), SERVICE, RULE)
    assert (found.span_name, found.scope) == ("openai.assistant.run", f"{OPENAI_SCOPE} 0.62.4")


@pytest.mark.parametrize(("scope", "shown"), [(("a", ""), "a"), (("", ""), ""), (("", "1"), "1")])
def test_a_scope_without_name_or_version_is_shown_without(scope, shown):
    assert describe(a_span("s", scope=scope)).scope == shown


# versions of OpenLLMetry

OWN = {
    ("0.15.0", False): MODELS,
    ("0.33.12", False): MODELS,
    ("0.34.0", False): PAIR | MODELS | SYSTEM,
    ("0.38.12", False): PAIR | MODELS | SYSTEM,
    ("0.45.6", False): PAIR | MODELS | SYSTEM,
    ("0.48.0", False): SWAPPED | MODELS | SYSTEM,
    ("0.50.1", False): SWAPPED | MODELS | SYSTEM,
    ("0.55.0", False): PAIR | MODELS | PROVIDER,
    ("0.62.4", False): PAIR | MODELS | PROVIDER,
    ("0.15.0", True): {},
    ("0.33.12", True): {},
    ("0.34.0", True): PAIR,
    ("0.38.12", True): PAIR,
    ("0.45.6", True): PAIR,
    ("0.48.0", True): SWAPPED,
    ("0.50.1", True): SWAPPED,
    ("0.55.0", True): PAIR,
    ("0.62.4", True): PAIR,
}


@pytest.mark.parametrize(("version", "existing"), OWN)
def test_what_the_run_spans_of_each_version_say(version, existing):
    assert describe(openllmetry_span(version, existing=existing)).own == OWN[version, existing]


@pytest.mark.parametrize(("version", "existing"), OWN)
def test_what_the_stream_spans_of_each_version_say(version, existing):
    """The pair was never swapped on streams."""
    swapped = OWN[version, existing]
    expected = swapped | PAIR if Fact.PROMPT in swapped else swapped

    assert describe(openllmetry_span(version, existing=existing, stream=True)).own == expected


@pytest.mark.parametrize("version", OPENLLMETRY_VERSIONS)
@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_of_every_version_is_read_and_the_question_is_not(version, stream):
    """Up to 0.38 the user's messages stand among the completions."""
    assert describe(openllmetry_span(version, stream=stream)).answers == (digest(ANSWER),)


@pytest.mark.parametrize(
    ("version", "stream", "ids"),
    [
        ("0.15.0", False, ()),
        ("0.34.0", False, ()),
        ("0.34.0", True, ()),
        ("0.38.12", False, (900, 1)),
        ("0.38.12", True, (1,)),
        ("0.45.6", False, (1,)),
        ("0.62.4", False, (1,)),
        ("0.62.4", True, (1,)),
    ],
)
def test_message_ids_of_each_version(version, stream, ids):
    found = describe(openllmetry_span(version, stream=stream))

    assert found.message_ids == tuple(map(message_id, ids))


@pytest.mark.parametrize("version", OPENLLMETRY_VERSIONS)
def test_no_version_names_run_or_thread(version):
    found = describe(openllmetry_span(version))

    assert (found.run_ids, found.thread_ids) == (set(), set())


# what is lacking


def test_what_is_lacking_is_what_has_no_key_in_one_of_the_vocabularies():
    found = describe(openllmetry_span("0.62.4"))

    assert found.lacks == (
        Fact.SYSTEM,
        Fact.PROMPT,
        Fact.COMPLETION,
        Fact.TOTAL,
        Fact.CACHED,
        Fact.REASONING,
        Fact.RUN_ID,
        Fact.THREAD_ID,
        Fact.ASSISTANT_ID,
    )


def test_one_vocabulary_alone_lacks_less():
    span = openllmetry_span("0.45.6")

    assert describe(span, (Convention.LEGACY,)).lacks == (Fact.TOTAL, Fact.CACHED)
    assert describe(span, (Convention.CURRENT,)).lacks == (
        Fact.PROVIDER,
        Fact.PROMPT,
        Fact.COMPLETION,
        Fact.TOTAL,
        Fact.CACHED,
        Fact.REASONING,
        Fact.RUN_ID,
        Fact.THREAD_ID,
        Fact.ASSISTANT_ID,
    )


def test_a_span_that_has_every_key_lacks_nothing_whatever_the_values():
    keys = {key for keys in KEYS.values() for key in keys.values()}

    assert described(*((key, "") for key in sorted(keys))).lacks == ()


def test_a_genuine_zero_is_present():
    found = described(("gen_ai.usage.prompt_tokens", 0), ("gen_ai.usage.input_tokens", 0))

    assert Fact.PROMPT not in found.lacks
    assert found.own[Fact.PROMPT] == 0


def test_present_holds_keys_of_facts_and_no_others():
    found = described(("gen_ai.system", ""), ("llm.usage.total_tokens", 5), ("app", 1))

    assert found.standing.keys() == {"gen_ai.system", "llm.usage.total_tokens"}


# what it says itself


@pytest.mark.parametrize(
    ("key", "value", "fact"),
    [
        ("llm.request.model", "m", Fact.REQUEST_MODEL),
        ("llm.response.model", "m", Fact.RESPONSE_MODEL),
        ("llm.usage.prompt_tokens", 1, Fact.PROMPT),
        ("llm.usage.completion_tokens", 1, Fact.COMPLETION),
        ("llm.usage.total_tokens", 1, Fact.TOTAL),
        ("llm.usage.cache_read_input_tokens", 1, Fact.CACHED),
        ("gen_ai.usage.cache_read_input_tokens", 1, Fact.CACHED),
        ("gen_ai.usage.cache_read.input_tokens", 1, Fact.CACHED),
        ("gen_ai.usage.reasoning_tokens", 1, Fact.REASONING),
        ("gen_ai.thread.run.id", "run_1", Fact.RUN_ID),
        ("gen_ai.thread.id", "thread_1", Fact.THREAD_ID),
        ("gen_ai.agent.id", "asst_1", Fact.ASSISTANT_ID),
    ],
)
def test_a_fact_is_read_under_every_key_that_states_it(key, value, fact):
    assert described((key, value)).own == {fact: value}


@pytest.mark.parametrize("value", ["1200", "", 1.5, True, None, [1200], {"n": 1200}])
def test_a_count_that_is_no_integer_is_not_believed_and_present_all_the_same(value):
    found = described(("gen_ai.usage.prompt_tokens", value))

    assert (found.own, found.standing) == ({}, {"gen_ai.usage.prompt_tokens": None})


@pytest.mark.parametrize("value", ['{"id": "run_1"}', "two words", "a\nb", "", "x" * 257, "[1]"])
def test_what_stands_where_a_name_should_and_is_none_is_not_believed(value):
    found = describe(a_span("s", {"llm.model_name": value}))

    assert (found.own, found.standing) == ({}, {"llm.model_name": None})


@pytest.mark.parametrize("value", ["", 5, None, True])
def test_a_word_that_is_no_text_is_not_believed(value):
    assert described(("gen_ai.system", value)).own == {}


def test_a_count_below_zero_is_not_believed():
    assert Fact.PROMPT not in described(("gen_ai.usage.prompt_tokens", -5)).own


def test_two_keys_that_agree_state_one_fact():
    found = described(("gen_ai.usage.prompt_tokens", 7), ("gen_ai.usage.input_tokens", 7))

    assert (found.own, found.defects) == ({Fact.PROMPT: 7}, ())


def test_two_keys_that_disagree_state_nothing_and_are_a_defect():
    found = described(
        ("gen_ai.usage.prompt_tokens", 7), ("gen_ai.usage.input_tokens", 8), ("gen_ai.usage.output_tokens", 9)
    )

    assert found.own == {Fact.COMPLETION: 9}
    assert found.own_pair is None
    assert found.defects == (DISAGREEING_USAGE,)


def test_words_that_disagree_state_nothing_and_are_no_defect_of_the_counts():
    found = described(("gen_ai.request.model", "a"), ("llm.request.model", "b"))

    assert (found.own, found.defects) == ({}, ())


@pytest.mark.parametrize(
    ("attributes", "pair"),
    [
        ([("gen_ai.usage.prompt_tokens", 7), ("gen_ai.usage.output_tokens", 9)], (7, 9)),
        ([("gen_ai.usage.prompt_tokens", 0), ("gen_ai.usage.completion_tokens", 0)], (0, 0)),
        ([("gen_ai.usage.prompt_tokens", 7)], None),
        ([("gen_ai.usage.output_tokens", 7)], None),
        ([], None),
    ],
)
def test_a_pair_is_both_counts(attributes, pair):
    assert described(*attributes).own_pair == pair


def test_a21_the_first_value_of_a_key_is_the_spans_word():
    found = described(("gen_ai.usage.prompt_tokens", 7), ("gen_ai.usage.prompt_tokens", 8))

    assert (found.own, found.defects) == ({Fact.PROMPT: 7}, ())


def test_a22_a_key_of_a_fact_is_present_wherever_it_stands():
    """Reading is capped; inserting a key that stands beyond the cap would make it stand twice."""
    filler = ((f"k{n}", n) for n in range(MAX_ATTRIBUTES))
    found = described(*filler, ("gen_ai.system", "openai"))

    assert "gen_ai.system" in found.standing
    assert Fact.SYSTEM not in found.lacks


# ids


@pytest.mark.parametrize("key", ["gen_ai.response.id", "gen_ai.thread.run.id", "app.run_id"])
def test_an_id_counts_under_any_key_of_an_id(key):
    assert described((key, run_id(4))).run_ids == {run_id(4)}
    assert described((key, thread_id(4))).thread_ids == {thread_id(4)}


@pytest.mark.parametrize(
    "value",
    [
        "run_",
        "run_1 and more",
        " run_1",
        "run_1\n",
        "run_" + "y" * 125,
        "Run_1",
        "run-1",
        b"run_1",
        ["run_1"],
        5,
        "step_1",
    ],
)
def test_what_only_looks_like_an_id_is_none(value):
    found = described(("id", value))

    assert (found.run_ids, found.thread_ids) == (set(), set())


SPOKEN = [
    "gen_ai.prompt.0.content",
    "gen_ai.completion.0.content",
    "gen_ai.completion.0.role",
    "llm.prompts.0.content",
    "gen_ai.prompt",
    "gen_ai.completion",
    "input.value",
    "traceloop.entity.input",
    "gen_ai.system_instructions",
    "gen_ai.event.content",
]


@pytest.mark.parametrize("key", SPOKEN)
def test_an_id_that_somebody_says_is_not_the_spans(key):
    found = described((key, run_id(4)), (key + ".x", 5))

    assert (found.run_ids, described((key, thread_id(4))).thread_ids) == (set(), set())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("traceloop.workflow.name", "run_assistant"),
        ("traceloop.entity.name", "run_tutor"),
        ("gen_ai.completion.0.tool_calls.0.name", "run_query"),
        ("llm.request.functions.0.name", "run_python"),
        ("gen_ai.tool.name", "run_sql"),
        ("code.function", "run_tests"),
        ("traceloop.workflow.name", "thread_worker"),
    ],
)
def test_names_of_functions_that_begin_like_an_id_are_none(key, value):
    """OpenLLMetry writes the workflow's name, a Python function, on every span below it."""
    found = described((key, value))

    assert (found.run_ids, found.thread_ids) == (set(), set())


def test_several_ids_are_all_kept():
    assert described(("a.run_id", run_id(1)), ("b.run_id", run_id(2))).run_ids == {run_id(1), run_id(2)}


def test_message_ids_come_in_the_order_of_their_numbers():
    ids = {f"gen_ai.response.{n}.id": message_id(n + 1) for n in (10, 9, 0, 2)}

    assert described(*ids.items()).message_ids == tuple(message_id(n + 1) for n in (0, 2, 9, 10))


@pytest.mark.parametrize("key", ["gen_ai.response.id", "gen_ai.conversation.id", "app.id"])
@pytest.mark.parametrize("value", ["run_REDACTED", "thread_REDACTED", "run_XXXXXXXXXXXXXXXXXXXXXXXX"])
def test_what_stands_where_an_id_was_taken_out_is_none(key, value):
    found = described((key, value))

    assert (found.run_ids, found.thread_ids) == (set(), set())


@pytest.mark.parametrize("value", ["", "chatcmpl-1", "msg_", "msg 1", "msg_REDACTED", 5, b"\xff"])
def test_message_ids_that_are_none_are_left_out(value):
    assert described(("gen_ai.response.0.id", value), ("gen_ai.response.1.id", message_id())).message_ids == (
        message_id(),
    )


@pytest.mark.parametrize("number", ["", "x", "-1", "²", "1.0", " 1"])
def test_keys_that_number_nothing_are_left_out(number):
    found = described((f"gen_ai.response.{number}.id", message_id()), (f"gen_ai.completion.{number}.content", ANSWER))

    assert (found.message_ids, found.answers) == ((), ())


@pytest.mark.parametrize("key", ["gen_ai.response.{}.id", "gen_ai.completion.{}.content"])
def test_a8_a_key_with_a_number_of_thousands_of_digits_does_not_raise(key):
    described((key.format("9" * 5000), message_id()))


def test_the_message_id_of_the_azure_client_is_read_where_there_is_no_other():
    assert described(("gen_ai.message.id", message_id(5))).message_ids == (message_id(5),)
    assert described(("gen_ai.message.id", message_id(5)), ("gen_ai.response.0.id", message_id(6))).message_ids == (
        message_id(6),
    )


# answers


def test_answers_come_in_the_order_of_their_numbers_and_only_the_assistants():
    found = described(
        ("gen_ai.completion.10.content", "last"),
        ("gen_ai.completion.0.role", "user"),
        ("gen_ai.completion.0.content", QUESTION),
        ("gen_ai.completion.2.role", "assistant"),
        ("gen_ai.completion.2.content", "first"),
        ("gen_ai.completion.3.role", "assistant"),
        ("gen_ai.completion.3.content", ""),
        ("gen_ai.completion.4.content", 5),
    )

    assert found.answers == (digest("first"), digest("last"))


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "parts": [{"type": "text", "content": ANSWER}]}],
        [{"parts": [{"type": "text", "content": ANSWER}]}],
        [
            {"role": "user", "parts": [{"type": "text", "content": QUESTION}]},
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "content": "x"}, {"type": "text", "content": ANSWER}],
            },
        ],
        [
            None,
            5,
            {"role": "assistant", "parts": None},
            {"parts": ["x", {"type": "text"}, {"type": "text", "content": 5}]},
            {"parts": [{"type": "text", "content": ""}, {"type": "text", "content": ANSWER}]},
        ],
    ],
)
def test_answers_are_read_from_output_messages(messages):
    assert described(("gen_ai.output.messages", as_json(messages))).answers == (digest(ANSWER),)


@pytest.mark.parametrize("value", ["", "[", "{}", '"text"', "null", 5, "[" * 5000, '[{"parts": "x"}]'])
def test_output_messages_that_cannot_be_read_hold_no_answers(value):
    assert described(("gen_ai.output.messages", value)).answers == ()


def test_output_messages_are_not_read_where_completions_are():
    messages = as_json([{"role": "assistant", "parts": [{"type": "text", "content": "other"}]}])
    found = described(("gen_ai.completion.0.content", ANSWER), ("gen_ai.output.messages", messages))

    assert found.answers == (digest(ANSWER),)


def test_a_candidate_holds_no_text():
    found = describe(openllmetry_span("0.62.4", answers=["secret answer"]))

    assert "secret answer" not in repr(found)
    assert QUESTION not in repr(found)


# provider


@pytest.mark.parametrize(
    ("key", "value", "azure"),
    [
        ("server.address", "tutors.openai.azure.com", True),
        ("gen_ai.openai.api_base", "https://tutors.openai.azure.com/", True),
        ("llm.openai.api_base", "https://tutors.services.ai.azure.com/", True),
        ("url.full", "https://api.openai.com/v1", False),
        ("server.address", 5, False),
        ("server.address", "threat-desk.openai.azure.com", True),
        ("server.address", "run_books.openai.azure.com", True),
        ("gen_ai.prompt.0.content", "https://tutors.openai.azure.com/", False),
        ("other", "https://tutors.openai.azure.com/", False),
    ],
)
def test_azure_is_told_by_the_spans_own_address(key, value, azure):
    assert described((key, value)).azure is azure


@pytest.mark.parametrize(
    ("address", "azure"),
    [
        ("x.openai.azure.com", True),
        ("x.openai.azure.us:443", True),
        ("https://user:pw@x.openai.azure.cn/openai?a=b#c", True),
        ("X.OPENAI.AZURE.COM", True),
        ("x.api.cognitive.microsoft.com", True),
        ("openai.azure.com", False),
        ("x.openai.azure.com.evil.example", False),
        ("https://evil.example/x.openai.azure.com", False),
        ("https://evil.example?x.openai.azure.com", False),
        ("", False),
        ("[::1]:80", False),
    ],
)
def test_hosts_of_azure(address, azure):
    assert semconv.served_by_azure(address) is azure


# defects


@pytest.mark.parametrize(
    ("version", "swapped"),
    [
        ("0.47.5", False),
        ("0.48.0", True),
        ("0.48.0rc1", True),
        ("0.50.1", True),
        ("0.54.99", True),
        ("0.55.0", False),
        ("0.62.4", False),
        ("1.48.0", False),
        ("", False),
        ("unknown", False),
    ],
)
def test_run_spans_of_some_versions_have_their_counts_swapped(version, swapped):
    counts = [("gen_ai.usage.input_tokens", 340), ("gen_ai.usage.output_tokens", 1200)]

    assert described(*counts, version=version).defects == ((SWAPPED_USAGE,) if swapped else ())
    assert described(*counts, version=version, name="openai.assistant.run_stream").defects == ()
    assert described(version=version).defects == ()


def test_other_scopes_have_no_known_defects():
    counts = [("gen_ai.usage.input_tokens", 0), ("gen_ai.usage.output_tokens", 0)]

    assert describe(a_span("openai.assistant.run_stream", counts, scope=("vendor", "0.50.0"))).defects == ()


@pytest.mark.parametrize("version", ["0.34.0", "0.50.1", "0.62.4"])
@pytest.mark.parametrize(("usage", "defects"), [((0, 0), (ZERO_STREAM_USAGE,)), ((5, 0), ()), ((0, 5), ())])
def test_a_stream_span_of_zeros_is_doubtful(version, usage, defects):
    assert describe(openllmetry_span(version, stream=True, usage=usage)).defects == defects


def test_a_run_span_of_zeros_is_not_doubtful():
    """A failed run has used nothing."""
    assert describe(openllmetry_span("0.62.4", usage=(0, 0))).defects == ()


def test_a_payload_in_what_was_said_is_not_read():
    """The span's words are compared with messages and used for nothing else."""
    found = describe(openllmetry_span("0.62.4", usage=None, answers=[as_json(a_run_payload())]))

    assert (found.run_ids, found.thread_ids, found.own_pair) == (set(), set(), None)
