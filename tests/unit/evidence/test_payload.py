"""What one recorded payload says, and what it must never be taken to say."""

import json

import pytest

from enricher.evidence import payload
from enricher.evidence.objects import Message, Run, Usage
from enricher.otlp.attributes import digest
from enricher.semconv import TERMINAL
from tests.support.build import (
    ANSWER,
    CREATED,
    MODEL,
    a_chat_completion,
    a_list,
    a_message_payload,
    a_run_payload,
    a_step_payload,
    a_usage,
    an_sse_transcript,
    as_json,
    assistant_id,
    message_id,
    run_id,
    thread_id,
)

RUN = Run(run_id(), thread_id(), assistant_id(), MODEL, "completed", Usage(1200, 340, 1540))


def read(value):
    return payload.read(value if isinstance(value, str) else as_json(value))


def usage_of(**fields):
    return read(a_run_payload(usage=a_usage() | fields)).runs[0].usage


# runs


def test_a_run_says_its_ids_model_status_and_usage():
    assert read(a_run_payload()).runs == [RUN]


@pytest.mark.parametrize("wraps", [0, 1, 2, 3])
def test_a_run_is_read_as_text_inside_text(wraps):
    """OpenLLMetry's decorators write a JSON string inside a JSON string."""
    text = as_json(a_run_payload())
    for _ in range(wraps):
        text = json.dumps(text)

    assert read(text).runs == [RUN]


def test_text_nested_deeper_than_that_says_nothing():
    text = as_json(a_run_payload())
    for _ in range(payload.MAX_NESTED + 1):
        text = json.dumps(text)

    assert not read(text)


@pytest.mark.parametrize("before", ["\ufeff", " \r\n\t", "\ufeff\n"])
def test_a_byte_order_mark_and_blanks_before_a_payload_do_not_matter(before):
    assert read(before + as_json(a_run_payload())).runs == [RUN]


@pytest.mark.parametrize("status", ["queued", "in_progress", "requires_action", "cancelling", "something_new"])
def test_counts_of_an_unfinished_run_are_not_its_counts(status):
    run = read(a_run_payload(status)).runs[0]

    assert (run.status, run.usage) == (status, None)


@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_counts_of_a_finished_run_are_its_counts(status):
    assert read(a_run_payload(status)).runs[0].usage == Usage(1200, 340, 1540)


@pytest.mark.parametrize("status", [..., None, 7])
def test_counts_of_a_run_without_a_status_are_believed(status):
    """Application logs leave the status out; the API shows counts only at the end."""
    run = read(a_run_payload(status)).runs[0]

    assert (run.status, run.usage) == (None, Usage(1200, 340, 1540))


def test_a_run_whose_usage_is_null_has_none():
    assert read(a_run_payload("in_progress", None)).runs[0].usage is None


def test_a_run_of_the_first_api_version_has_no_usage():
    assert read(a_run_payload(usage=...)).runs[0].usage is None


def test_a_run_whose_object_was_left_out_is_told_by_its_fields():
    assert read(a_run_payload(object=...)).runs == [RUN]


@pytest.mark.parametrize(
    "left_out", [{"id": "call_1"}, {"id": 5}, {"status": ...}, {"thread_id": ..., "assistant_id": ...}]
)
def test_an_object_of_no_kind_that_lacks_a_runs_fields_is_no_run(left_out):
    assert read(a_run_payload(object=..., **left_out)).runs == []


@pytest.mark.parametrize("bad", [None, 5, "", "run_/../../etc", "run id", "y" * 129, "run_\n"])
def test_f35_a_run_with_an_id_that_is_not_safe_is_unreadable(bad):
    said = read(a_run_payload(id=bad))

    assert (said.runs, said.unreadable) == ([], True)


MASKED = [
    "__REDACTED__",
    "REDACTED",
    "run_redacted_1",
    "XXXX",
    "run_" + "x" * 24,
    "run_abxxxxxx12",
    "xxxx-xxxx",
    "run_null",
]


@pytest.mark.parametrize("masked", MASKED)
def test_a_run_whose_id_was_taken_out_is_unreadable(masked):
    """All runs share what stands there, so it would make one run of all."""
    said = read(a_run_payload(id=masked))

    assert (said.runs, said.unreadable) == ([], True)


@pytest.mark.parametrize("short", ["run_1", "run_0", "run_x", "run_none1", "run_" + "0" * 24])
def test_an_id_that_only_resembles_what_stands_for_one_is_believed(short):
    assert [each.run_id for each in read(a_run_payload(id=short)).runs] == [short]


@pytest.mark.parametrize("bad", [None, 5, "thread/1", {"id": "thread_1"}])
def test_other_ids_that_are_not_safe_are_left_out(bad):
    run = read(a_run_payload(thread_id=bad, assistant_id=bad)).runs[0]

    assert (run.thread_id, run.assistant_id) == (None, None)


@pytest.mark.parametrize("bad", [None, 5, "", "a\nb", "\x1b[31m", "x" * 257, ["gpt"]])
def test_a15_a_model_that_is_no_printable_name_is_left_out(bad):
    assert read(a_run_payload(model=bad)).runs[0].model is None


# usage


@pytest.mark.parametrize("outer", ["prompt_token_details", "prompt_tokens_details"])
def test_cached_tokens_are_read_under_either_spelling(outer):
    """The Assistants API writes the singular, its documentation the plural."""
    assert usage_of(**{outer: {"cached_tokens": 128}}) == Usage(1200, 340, 1540, cached=128)


@pytest.mark.parametrize("outer", ["completion_token_details", "completion_tokens_details"])
def test_reasoning_tokens_are_read_under_either_spelling(outer):
    assert usage_of(**{outer: {"reasoning_tokens": 64}}) == Usage(1200, 340, 1540, reasoning=64)


def test_details_of_zero_are_values():
    usage = read(a_run_payload(usage=a_usage(cached=0, reasoning=0))).runs[0].usage

    assert (usage.cached, usage.reasoning) == (0, 0)


@pytest.mark.parametrize("details", [None, 5, [], {}, {"cached_tokens": None}, {"cached_tokens": -1}])
def test_details_that_say_nothing_are_left_out(details):
    assert usage_of(prompt_token_details=details).cached is None


def test_details_larger_than_what_they_are_a_part_of_are_left_out():
    usage = usage_of(prompt_token_details={"cached_tokens": 1201}, completion_tokens_details={"reasoning_tokens": 341})

    assert usage == Usage(1200, 340, 1540)


def test_counts_of_zero_are_counts():
    assert read(a_run_payload("failed", (0, 0))).runs[0].usage == Usage(0, 0, 0)


def test_a_missing_total_is_the_sum():
    assert usage_of(total_tokens=None) == Usage(1200, 340, 1540)


def test_whole_doubles_are_counts():
    """Log pipelines turn integers into doubles."""
    usage = usage_of(prompt_tokens=1200.0, completion_tokens=340.0, total_tokens=1540.0)

    assert usage == Usage(1200, 340, 1540)
    assert {type(usage.prompt), type(usage.completion), type(usage.total)} == {int}


@pytest.mark.parametrize("bad", [None, -1, 1.5, "1200", True, [], {}, 1 << 63, 1e300])
@pytest.mark.parametrize("key", ["prompt_tokens", "completion_tokens"])
def test_counts_that_are_no_counts_make_no_usage(key, bad):
    assert usage_of(**{key: bad, "total_tokens": None}) is None


@pytest.mark.parametrize("bad", [1541, 0, -1, "1540", 1540.5, True, []])
def test_a_total_that_is_not_the_sum_makes_no_usage(bad):
    assert usage_of(total_tokens=bad) is None


def test_counts_whose_sum_is_no_integer_of_64_bits_make_no_usage():
    """It could not be written as an attribute."""
    assert usage_of(prompt_tokens=1 << 62, completion_tokens=1 << 62, total_tokens=None) is None


@pytest.mark.parametrize("bad", ["__REDACTED__", [1200, 340], 7, {}])
def test_usage_that_is_no_usage_object_is_none(bad):
    assert read(a_run_payload(usage=bad)).runs[0].usage is None


def test_limits_of_a_run_are_not_its_usage():
    """`max_prompt_tokens` holds the letters `prompt_tokens`."""
    said = read({"max_prompt_tokens": 5000, "max_completion_tokens": 1000})

    assert not said


# bare usage


@pytest.mark.parametrize("wrap", [as_json, lambda value: json.dumps(as_json(value))])
def test_a_usage_object_alone_is_bare(wrap):
    assert read(wrap(a_usage(cached=5))).bare == [Usage(1200, 340, 1540, 5)]


@pytest.mark.parametrize(
    "wrapped",
    [
        {"usage": a_usage()},
        [a_usage()],
        a_list([a_usage()]),
        {"step": {"usage": a_usage()}},
        {"result": as_json(a_usage())},
        a_chat_completion(),
        a_step_payload(),
        {"object": "thread.run.step.delta", "usage": a_usage()},
    ],
)
def test_a_usage_object_inside_another_object_is_not_bare(wrapped):
    assert read(wrapped).bare == []


def test_a_usage_object_that_is_not_whole_is_not_bare():
    assert read(a_usage() | {"total_tokens": 1}).bare == []


def test_a_usage_object_in_a_transcript_is_not_bare():
    assert read(f"data: {as_json(a_usage())}\n\n").bare == []


# messages and steps


def test_a_message_names_its_run_and_thread_and_holds_its_texts_as_digests():
    said = read(a_message_payload("  padded\n", number=3, run=2))

    assert said.messages == [
        Message(message_id(3), run_id(2), thread_id(), True, CREATED + 3, (digest("padded"),)),
    ]
    assert said.mentioned == {run_id(2)}
    assert said.runs == []


def test_a_users_message_names_no_run():
    said = read(a_message_payload(run=None, role="user"))

    assert (said.messages[0].run_id, said.messages[0].from_assistant, said.mentioned) == (None, False, set())


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ([{"type": "text", "text": "plain"}], ("plain",)),
        ([{"text": {"value": "a"}}, {"text": {"value": "b"}}], ("a", "b")),
        ([{"type": "image_file", "image_file": {"file_id": "f"}}, {"text": {"value": "a"}}], ("a",)),
        ([{"text": {"value": ""}}, {"text": {"value": 5}}, {"text": {}}, {"text": None}, "a", None], ()),
        ("plain", ()),
        (None, ()),
    ],
)
def test_texts_of_a_message_are_its_text_parts(content, texts):
    message = read(a_message_payload(content=content)).messages[0]

    assert message.texts == tuple(map(digest, texts))


@pytest.mark.parametrize("bad", [None, 5, "msg 1", ""])
def test_a_message_without_a_safe_id_says_nothing(bad):
    assert not read(a_message_payload(id=bad))


@pytest.mark.parametrize("bad", ["soon", None, -1, 1.5])
def test_a_message_whose_time_is_no_time_has_none(bad):
    assert read(a_message_payload(created_at=bad)).messages[0].created_at is None


def test_a_step_names_its_run_and_the_message_it_wrote_and_its_usage_is_not_read():
    """The usage of the steps adds up to the run's: adding both doubles it."""
    said = read(a_step_payload(run=4, message=6))

    assert said.mentioned == {run_id(4)}
    assert [(each.message_id, each.run_id, each.texts) for each in said.messages] == [(message_id(6), run_id(4), ())]
    assert (said.runs, said.bare) == ([], [])


def test_what_an_agent_of_langchain_returns_names_its_run_and_is_not_read_as_an_answer():
    finish = {"type": "AgentFinish", "return_values": {"output": as_json(a_run_payload(number=7))}, "log": ""}

    said = read(as_json(finish | {"run_id": run_id(4), "thread_id": thread_id()}))
    assert (said.mentioned, said.runs, said.messages, said.bare) == ({run_id(4)}, [], [], [])
    said = read(as_json(finish))
    assert (said.mentioned, said.runs) == (set(), [])


def test_a_step_of_tool_calls_names_its_run_only():
    said = read(a_step_payload(message=None))

    assert (said.mentioned, said.messages) == ({run_id()}, [])


@pytest.mark.parametrize(
    "details", [None, "x", {}, {"message_creation": None}, {"message_creation": {"message_id": 5}}]
)
def test_a_step_with_strange_details_names_its_run_only(details):
    said = read(a_step_payload() | {"step_details": details})

    assert (said.mentioned, said.messages) == ({run_id()}, [])


def test_a_step_without_a_run_says_nothing():
    assert not read(a_step_payload() | {"run_id": None})


# lists and wrapping objects


def test_a_list_says_what_its_members_say_in_their_order():
    said = read(a_list([a_run_payload(number=1), a_run_payload(number=2), a_message_payload()]))

    assert [run.run_id for run in said.runs] == [run_id(1), run_id(2)]
    assert len(said.messages) == 1


@pytest.mark.parametrize(
    "wrapped",
    [
        {"run": a_run_payload()},
        {"result": {"data": [[a_run_payload()]]}},
        {"output": as_json(a_run_payload())},
        [a_run_payload(), {"object": "thread"}],
        {"outputs": {"run": as_json(a_run_payload())}},
    ],
)
def test_a_run_is_found_inside_other_objects(wrapped):
    assert read(wrapped).runs == [RUN]


def test_structured_values_are_read_as_text_is():
    assert payload.read_value(a_run_payload()).runs == [RUN]
    assert payload.read_value({"event": "done", "run": as_json(a_run_payload())}).runs == [RUN]
    assert payload.read_value(a_usage()).bare == [Usage(1200, 340, 1540)]


@pytest.mark.parametrize("value", [None, 5, 1.5, True, "", [], {}, [1, None], {"a": 1}])
def test_values_that_are_no_payload_say_nothing(value):
    assert not payload.read_value(value)


@pytest.mark.parametrize("kind", ["chat.completion", "thread", "assistant", "thread.message.delta", "vector_store", 5])
def test_objects_of_other_kinds_are_not_looked_into(kind):
    assert not read({"object": kind, "run": a_run_payload(), "usage": a_usage()})


# words of people and models


@pytest.mark.parametrize("key", sorted(payload.CONVERSATION))
@pytest.mark.parametrize("shape", [as_json, lambda value: value, lambda value: [value], lambda value: {"text": value}])
def test_what_stands_under_a_key_of_conversation_is_not_evidence(key, shape):
    said = read({"run_id": "x", key: shape(a_run_payload())})

    assert not said


def test_a_payload_inside_a_messages_own_text_is_not_evidence():
    said = read(a_list([a_message_payload(as_json(a_run_payload(number=9)), run=1)]))

    assert (said.runs, said.bare, said.mentioned) == ([], [], {run_id(1)})


@pytest.mark.parametrize("key", ["instructions", "additional_instructions", "metadata", "tools", "last_error"])
def test_a_payload_inside_a_runs_own_fields_is_not_evidence(key):
    said = read(a_run_payload(**{key: as_json(a_run_payload(number=9))}))

    assert said.runs == [RUN]


def test_a_payload_inside_a_steps_tool_output_is_not_evidence():
    details = {"type": "tool_calls", "tool_calls": [{"output": as_json(a_run_payload(number=9))}]}
    said = read(a_step_payload(message=None) | {"step_details": details})

    assert (said.runs, said.mentioned) == ([], {run_id(1)})


def test_a_payload_inside_an_answer_beside_its_run_is_not_evidence():
    """Langfuse records what a function returned: `[answer, run]`."""
    said = read([as_json(a_run_payload(number=9, usage=(1, 1))), a_run_payload()])

    assert said.runs == [RUN]


def test_a_payload_inside_a_chat_answer_is_not_evidence():
    completion = a_chat_completion()
    completion["choices"][0]["message"]["content"] = as_json(a_run_payload())

    assert not read(completion)


# server-sent events


def test_a_transcript_says_what_its_events_say():
    transcript = an_sse_transcript(
        a_run_payload("in_progress", None),
        a_step_payload(),
        {"object": "thread.message.delta", "delta": {"content": [{"text": {"value": "Abo"}}]}},
        a_message_payload(),
        a_run_payload(),
    )
    said = read(transcript)

    assert [(run.status, run.usage) for run in said.runs] == [
        ("in_progress", None),
        ("completed", Usage(1200, 340, 1540)),
    ]
    assert [message.texts for message in said.messages] == [(), (digest(ANSWER),)]
    assert (said.bare, said.unreadable) == ([], False)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("first", ["", "id: 1\n", ": ping\n", "retry: 3000\n"])
def test_a_transcript_may_begin_with_any_field_and_use_any_newline(newline, first):
    transcript = (first + an_sse_transcript(a_run_payload())).replace("\n", newline)

    assert read(transcript).runs == [RUN]


def test_several_data_lines_of_one_event_are_one_value():
    lines = json.dumps(a_run_payload(), indent=1).splitlines()
    transcript = "".join(f"data: {line}\n" for line in lines) + "\n"

    assert read(transcript).runs == [RUN]


def test_the_last_event_needs_no_blank_line_behind_it():
    assert read(f"data:{as_json(a_run_payload())}").runs == [RUN]


def test_a_transcript_inside_a_json_string_is_read():
    assert read(json.dumps(an_sse_transcript(a_run_payload()))).runs == [RUN]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_separator_of_unicode_inside_an_answer_ends_no_line(separator):
    """Lines of an event stream end with CR, LF or both; JSON may hold the others as they are."""
    said = read(an_sse_transcript(a_message_payload(f"one{separator}two"), a_run_payload()))

    assert [message.texts for message in said.messages] == [(digest(f"one{separator}two"),)]
    assert not said.unreadable


def test_an_event_that_is_cut_off_says_nothing_and_the_ones_before_it_are_believed():
    transcript = an_sse_transcript(a_message_payload(), a_run_payload())
    said = read(transcript[: transcript.rindex("max_prompt_tokens")])

    assert (len(said.messages), said.runs, said.unreadable) == (1, [], True)


def test_a_payload_inside_a_streamed_message_is_not_evidence():
    said = read(an_sse_transcript(a_message_payload(as_json(a_run_payload(number=9)))))

    assert said.runs == []


# what cannot be read


@pytest.mark.parametrize("length", [20, 200, 400, -1])
def test_a_payload_that_is_cut_off_is_unreadable_and_says_nothing(length):
    """An attribute length limit cuts before `usage`; half a number is worse than none."""
    said = read(as_json({"assistant_id": "x"} | a_run_payload())[:length])

    assert (said.runs, said.bare, said.unreadable) == ([], [], True)


def test_a_usage_object_cut_inside_a_number_says_nothing():
    said = read('{"prompt_tokens": 12, "completion_tokens": 34')

    assert (said.bare, said.unreadable) == ([], True)


@pytest.mark.parametrize("text", ["", "__REDACTED__", "[REDACTED]", "{}", "null", "run_id", "a thread.run ended"])
def test_texts_that_are_no_payload_say_nothing(text):
    assert not read(text)


def test_a8_a_large_payload_of_nothing_but_empty_values_is_not_decoded():
    bomb = '{"usage": {"prompt_tokens": 1}, "data": [' + "{}," * 3_100_000 + "{}]}"

    assert read(bomb).unreadable


def test_a_large_payload_of_much_text_is_read():
    run = a_run_payload() | {"instructions": "long " * (1 << 20)}

    assert [each.usage[:2] for each in read(as_json(run)).runs] == [(1200, 340)]


@pytest.mark.parametrize(
    "text",
    ['{"assistant_id": NaN}', '{"assistant_id": 1}}', "{'assistant_id': 1}", '"thread.run', '{"assistant_id": \ud800}'],
)
def test_texts_that_begin_like_a_payload_and_are_not_json_are_unreadable(text):
    assert read(text).unreadable


def test_a7_values_nested_too_deep_are_unreadable_and_do_not_raise():
    depth = 100_000
    assert read('{"assistant_id":' * depth + "1" + "}" * depth).unreadable
    assert not payload.read_value(_nested(5_000))


def _nested(depth):
    value = {"run_id": 1}
    for _ in range(depth):
        value = {"in": [value]}
    return value


def test_f35_a_payload_that_is_too_long_says_nothing(monkeypatch):
    text = as_json(a_run_payload())
    monkeypatch.setattr(payload, "MAX_TEXT", len(text))
    assert read(text).runs == [RUN]

    assert not read(text + " ")


def test_a_payload_of_too_many_values_is_unreadable(monkeypatch):
    monkeypatch.setattr(payload, "MAX_NODES", 10)

    assert not read([{}] * 8 + [{"assistant_id": 1}]).unreadable
    assert read([{}] * 9 + [{"assistant_id": 1}]).unreadable


def test_a8_numbers_of_thousands_of_digits_do_not_raise():
    said = read('{"object": "thread.run", "id": "run_1", "usage": {"prompt_tokens": ' + "9" * 5000 + "}}")

    assert all(run.usage is None for run in said.runs)
