"""What recorded files say: every shape that tools write, and nothing that was asked, said or made up in them."""

import base64
import gzip
import json
import zlib

import pytest
import yaml
import zstandard

from enricher.errors import CaptureError
from enricher.evidence import bounded_json, exchanges, files, payload, plain_yaml
from enricher.evidence.collect import Evidence, Place
from enricher.evidence.index import Index
from enricher.evidence.objects import Usage
from tests.support.build import (
    a_chat_completion,
    a_list,
    a_message_payload,
    a_run_payload,
    a_step_payload,
    a_usage,
    an_sse_transcript,
    as_json,
    message_id,
    run_id,
    thread_id,
)

USAGE = Usage(1200, 340, 1540)
RUN_ADDRESS = f"https://api.openai.com/v1/threads/{thread_id()}/runs/{run_id()}"
OTHER_ADDRESS = "https://api.openai.com/v1/chat/completions"
AZURE_ADDRESS = f"https://east.openai.azure.com/openai/threads/{thread_id()}/runs/{run_id()}?api-version=2024-05-01"


def read(content):
    data = content if isinstance(content, bytes) else content.encode()
    return list(files.read(data, "a.json"))


def said(content):
    """Return the evidence of a file in which there is no error."""
    found = read(content)
    assert [each for each in found if isinstance(each, CaptureError)] == []
    return found


def error(content):
    """Return in words the only thing that a file gives, an error."""
    (found,) = read(content)
    assert isinstance(found, CaptureError), found
    return found.what


def problems(content):
    return [each.what for each in read(content) if isinstance(each, CaptureError)]


def usages(content):
    return [(run.run_id, run.usage) for each in said(content) for run in each.said.runs]


def bytes_of(value):
    return value if isinstance(value, bytes) else (value if isinstance(value, str) else as_json(value)).encode()


# ---- the shapes


def a_har(*answers, url=RUN_ADDRESS, request=None, as_base64=False, **content):
    """Return a HAR file of the answers, which are JSON values, text or bytes."""
    entries = []
    for each in answers:
        body = bytes_of(each)
        text = base64.b64encode(body).decode() if as_base64 else body.decode()
        recorded = {"size": len(body), "mimeType": "application/json", "text": text} | content
        if as_base64:
            recorded["encoding"] = "base64"
        asked = {"method": "GET", "url": url, "headers": []} | (request or {})
        entries.append({"startedDateTime": "2024-05-01T00:00:00Z", "request": asked, "response": {"content": recorded}})
    return json.dumps({"log": {"version": "1.2", "entries": entries}}, indent=1)


def interactions(*answers, url=RUN_ADDRESS, request=None):
    return [
        {
            "request": {"method": "GET", "uri": url, "body": None, "headers": {}} | (request or {}),
            "response": {
                "body": {"string": each if isinstance(each, str | bytes) else as_json(each)},
                "headers": {"content-encoding": ["gzip"]},
                "status": {"code": 200, "message": "OK"},
            },
        }
        for each in answers
    ]


def a_cassette(*answers, **where):
    return yaml.safe_dump({"interactions": interactions(*answers, **where), "version": 1})


RUNS = [a_run_payload(number=1), a_run_payload(number=2, thread=2)]
BOTH = [(run_id(1), USAGE), (run_id(2), USAGE)]

SHAPES = {
    "one document": as_json(RUNS),
    "indented": json.dumps(RUNS, indent=2),
    "a page of a list": as_json(a_list(RUNS)),
    "a list with other things": as_json([1, None, RUNS[0], "text", [RUNS[1]]]),
    "wrapped": as_json({"saved": "2024-05-01", "answers": {"first": RUNS[0], "second": as_json(RUNS[1])}}),
    "a line each": "".join(as_json(each) + "\n" for each in RUNS),
    "a line each, the last without an end": "\n".join(map(as_json, RUNS)),
    "a line each, as Windows ends them": "".join(as_json(each) + "\r\n" for each in RUNS),
    "application log": "".join(as_json({"level": "info", "answer": as_json(each)}) + "\n" for each in RUNS),
    "application log that begins with a text": "starting\n" + "".join(as_json(each) + "\n" for each in RUNS),
    "transcript": an_sse_transcript(*RUNS),
    "transcript in a line of a log": as_json({"body": an_sse_transcript(*RUNS)}) + "\n",
    "byte order mark": "\ufeff" + as_json(RUNS),
    "HAR": a_har(*RUNS),
    "HAR in base64": a_har(*RUNS, as_base64=True),
    "HAR with a transcript": a_har(an_sse_transcript(*RUNS)),
    "HAR in one line": as_json(json.loads(a_har(*RUNS))) + "\n",
    "cassette": a_cassette(*RUNS),
    "cassette of bytes": a_cassette(*map(bytes_of, RUNS)),
    "cassette of gzip": a_cassette(*(gzip.compress(bytes_of(each)) for each in RUNS)),
    "cassette of deflate": a_cassette(*(zlib.compress(bytes_of(each)) for each in RUNS)),
    "cassette of zstd": a_cassette(*(zstandard.compress(bytes_of(each)) for each in RUNS)),
    "cassette with a transcript": a_cassette(an_sse_transcript(*RUNS)),
    "cassette with its version in front": "version: 1\n" + yaml.safe_dump({"interactions": interactions(*RUNS)}),
    "cassette in JSON": as_json({"version": 1, "interactions": interactions(*RUNS)}),
    "cassette in JSON, indented": json.dumps({"version": 1, "interactions": interactions(*RUNS)}, indent=4),
    "an exchange a line": "".join(as_json(each) + "\n" for each in interactions(*RUNS)),
    "a list of exchanges": as_json(interactions(*RUNS)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_runs_are_read_out_of_every_shape(shape):
    assert usages(SHAPES[shape]) == BOTH


def test_older_cassettes_of_httpx_hold_the_body_as_content():
    exchange = {
        "request": {"uri": RUN_ADDRESS},
        "response": {"status_code": 200, "http_version": "HTTP/1.1", "content": as_json(a_run_payload())},
    }

    assert usages(yaml.safe_dump({"interactions": [exchange]})) == BOTH[:1]


def test_a_body_may_be_recorded_as_a_value():
    exchange = {"request": {"url": RUN_ADDRESS}, "response": {"status": 200, "body": a_run_payload()}}

    assert usages(as_json(exchange)) == BOTH[:1]


def test_messages_and_steps_tie_texts_and_ids_to_their_run():
    content = a_har(a_list([a_message_payload("Yes.")]), a_list([a_step_payload()]))

    messages = [message for each in said(content) for message in each.said.messages]
    assert [(each.message_id, each.run_id) for each in messages] == [(message_id(), run_id())] * 2


@pytest.mark.parametrize(
    "content",
    ["", " \r\n\t", "\ufeff", "{}", "[]", "{}\n{}\n", as_json({"name": "package", "version": 1}), ": keep-alive\n"],
)
def test_files_of_something_else_say_nothing_and_are_no_error(content):
    assert read(content) == []


# ---- where it stands


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (as_json(RUNS[0]), ["file a.json"]),
        (json.dumps(RUNS, indent=1), ["file a.json, item 1", "file a.json, item 2"]),
        (
            as_json(RUNS[0]) + "\n\n" + as_json([RUNS[1]]) + "\n",
            ["file a.json, byte 0", "file a.json, byte {}, item 1"],
        ),
        (a_har(*RUNS), ["file a.json, entry 1", "file a.json, entry 2"]),
        (a_cassette(*RUNS), ["file a.json, interaction 1", "file a.json, interaction 2"]),
    ],
    ids=["document", "list", "lines", "HAR", "cassette"],
)
def test_a_place_names_the_file_and_the_part_of_it_and_nothing_else(content, places):
    """Times inside a payload say nothing of the span, and a file belongs to no trace and no service."""
    second_line = len(as_json(RUNS[0])) + 2

    assert [each.place for each in said(content)] == [Place(each.format(second_line)) for each in places]


@pytest.mark.parametrize(
    ("url", "azure"),
    [(RUN_ADDRESS, False), (AZURE_ADDRESS, True), (AZURE_ADDRESS.partition(".com")[2], None)],
    ids=["openai", "azure", "no host"],
)
@pytest.mark.parametrize("shape", [a_har, a_cassette])
def test_the_address_tells_ids_and_who_served(shape, url, azure):
    (evidence,) = said(shape(RUNS[0], url=url))

    assert (evidence.urls, evidence.azure) == (((thread_id(), run_id()),), azure)


def test_an_address_tells_ids_even_if_the_body_was_not_recorded():
    content = json.loads(a_har(""))
    del content["log"]["entries"][0]["response"]["content"]["text"]

    (evidence,) = said(as_json(content))
    assert (evidence.urls, bool(evidence.said)) == (((thread_id(), run_id()),), False)


def test_ids_in_the_query_of_an_address_are_not_believed():
    url = f"https://example.com/login?next=/threads/{thread_id()}/runs/{run_id()}"

    assert said(a_har("", url=url)) == []


def test_evidence_of_files_reaches_no_trace_no_service_and_no_span():
    index = Index()
    for each in said(a_har(*RUNS, a_list([a_message_payload("Yes.")]), a_usage(), url=AZURE_ADDRESS)):
        index.add(each, float("inf"))

    assert set(index.runs) == {run_id(1), run_id(2)}
    assert index.of_thread(thread_id(2)) == {run_id(2)}
    assert index.runs[run_id(1)].azure
    assert (index.of_trace(b""), index.named_in_trace(b"")) == (set(), set())
    assert not any(run.services for run in index.runs.values())
    assert (index.on_span(b"", b""), index.named_on_span(b"", b"")) == (set(), set())
    assert not index.traces
    assert (index.runs[run_id(1)].first, index.runs[run_id(1)].last, index.runs[run_id(1)].answered) == (0, 0, 0)


# ---- what is no evidence


@pytest.mark.parametrize(
    "content",
    [
        as_json(a_usage()),
        as_json({"usage": a_usage()}),
        as_json(a_usage()) + "\n" + as_json(a_usage()) + "\n",
        a_har(a_usage()),
        a_har({"usage": a_usage()}),
        a_cassette(a_usage()),
    ],
)
def test_a_usage_object_that_stands_alone_in_a_file_is_nobodys(content):
    found = said(content)

    assert [each for each in found if each.said] == []


FORGED = a_run_payload(usage=(1, 1))


@pytest.mark.parametrize("shape", [a_har, a_cassette])
@pytest.mark.parametrize(
    "request_body",
    [
        as_json(FORGED),
        as_json({"tool_outputs": [{"tool_call_id": "call_1", "output": as_json(FORGED)}]}),
        FORGED,
    ],
    ids=["text", "tool output", "value"],
)
def test_requests_are_never_read(shape, request_body):
    content = shape(RUNS[1], request={"body": request_body, "postData": {"text": request_body}})

    assert usages(content) == BOTH[1:]


@pytest.mark.parametrize("shape", [a_har, a_cassette])
@pytest.mark.parametrize(
    "answer",
    [
        a_chat_completion() | {"run": FORGED},
        {"result": FORGED},
        {"object": "list", "data": [{"object": "vector_store", "latest": FORGED}]},
        "data: " + as_json(FORGED) + "\n\n",
        "<html>" + as_json(FORGED),
        as_json(as_json(FORGED)),
    ],
    ids=["chat completion", "wrapped", "list of others", "events of others", "page", "text in text"],
)
def test_answers_of_other_services_are_not_read(shape, answer):
    assert said(shape(answer, url=OTHER_ADDRESS)) == []


@pytest.mark.parametrize("shape", [a_har, a_cassette])
@pytest.mark.parametrize(
    "answer",
    [RUNS[0], a_list(RUNS[:1]), an_sse_transcript(RUNS[0])],
    ids=["run", "list", "transcript"],
)
def test_a_body_that_is_an_object_of_the_api_is_read_wherever_it_came_from(shape, answer):
    assert usages(shape(answer, url="https://gateway.example/assistant")) == BOTH[:1]


@pytest.mark.parametrize(
    "content",
    [
        as_json({"messages": [{"role": "user", "content": as_json(FORGED)}]}),
        as_json(a_message_payload(as_json(FORGED))),
        as_json({"prompt": FORGED}),
        as_json(["a", as_json(FORGED)]),
        as_json({"prompt": as_json(FORGED)}) + "\n{}\n",
        a_har(a_list([a_message_payload(as_json(FORGED))])),
        a_cassette(a_list([a_message_payload(as_json(FORGED))])),
    ],
)
def test_a12_words_of_people_and_models_are_never_believed(content):
    assert usages(content) == []


def test_a_record_of_a_request_without_an_address_gives_its_response_only():
    record = {"request": {"body": as_json(FORGED)}, "response": {"run": RUNS[1]}}

    assert usages(as_json(record)) == BOTH[1:]


def test_f35_ids_that_are_no_ids_are_not_believed():
    found = read(as_json(a_run_payload(id="../../etc/passwd")))

    assert [type(each) for each in found] == [CaptureError]


# ---- what cannot be read


def test_f35_a_document_that_is_cut_off_is_named_where_it_ends():
    text = json.dumps(RUNS[0], indent=1)

    (found,) = read(text[:-20])
    assert (found.what, 0 < found.offset <= len(text)) == ("JSON that is cut off or damaged", True)


def test_a_bad_line_costs_one_line_and_is_named_by_its_byte():
    bad = as_json(RUNS[0])[:-9]
    content = as_json(RUNS[0]) + "\n" + bad + "\n" + as_json(RUNS[1]) + "\n"

    first, second, third = read(content)
    assert [run.run_id for each in (first, third) for run in each.said.runs] == [run_id(1), run_id(2)]
    assert second.what == "JSON that is cut off or damaged"
    assert len(as_json(RUNS[0])) < second.offset < len(as_json(RUNS[0])) + 2 + len(bad)


def test_a_last_line_that_is_cut_off_is_named():
    content = as_json(RUNS[0]) + "\n" + as_json(RUNS[1])[:-9]

    evidence, found = read(content)
    assert isinstance(evidence, Evidence)
    assert (found.what, found.offset) == ("the last line is cut off", len(as_json(RUNS[0])) + 1)


def test_lines_of_no_interest_may_be_anything():
    assert usages(as_json(RUNS[0]) + "\n{broken\nplain words of a thread.run\n\0\0\n" + as_json(RUNS[1]) + "\n") == BOTH


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("hello", "neither JSON, JSON lines, HAR, a cassette in YAML nor server-sent events"),
        (b"\xff\xfe{\x00}\x00", "neither"),
        (b"\0" * 100, "neither"),
        ("<html></html>", "neither"),
        (b'{"object": "thread.run\xff"}', "JSON that is cut off or damaged"),
        ('{"object": ', "cut off"),
        ('"object', "cut off"),
        ("[" * 100_000, "cut off or damaged"),
        ('{"a":' * 100_000, "cut off or damaged"),
        (as_json(FORGED).replace("1200", "9" * 5000)[:-1], "cut off or damaged"),
        (b"data: \xff\n\n", "not UTF-8"),
        ('data: {"object": "thread.run"\n\n', "an answer that is cut off"),
        ("interactions:\n- request: {\n", "a cassette that cannot be read: no YAML, or cut off, or damaged at line"),
        ("interactions:\n- *a\n", "an alias of what is not complete before it"),
        ("interactions: &a\n- *a\n", "an alias of what is not complete before it"),
        ("interactions:\n- !!binary 'abc'\n", "!!binary that is not base64"),
        ("interactions:\n- \0\n", "characters that YAML has no place for"),
        ("interactions:\n" + "- " * 100, "nested more than 64 deep"),
        ("interactions:\n- " + "[" * 100, "nested more than 64 deep"),
        ("interactions:\n- " + "[" * 100_000, "a cassette that"),  # libyaml has a limit of its own, or none
    ],
)
def test_a8_what_cannot_be_read_is_named_without_a_word_of_it(content, words):
    assert words in error(content)


def test_a8_long_numbers_and_numbers_that_are_none_are_no_usage():
    for written in ("9" * 5000, "1e400", "-5", "NaN", "1.5"):
        for each in read(as_json(RUNS[0]).replace("1200", written)):
            assert isinstance(each, CaptureError) or not any(run.usage for run in each.said.runs)


@pytest.mark.parametrize("shape", [a_har, a_cassette])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"\x89PNG\xff\xfe", "neither text nor compressed"),
        (gzip.compress(bytes_of(RUNS[0]))[:-30], "a compressed body that is cut off"),
        (gzip.compress(bytes_of(RUNS[0]))[:20] + b"\xff" * 50, "a compressed body that is damaged"),
        (b"\x28\xb5\x2f\xfdnonsense", "a compressed body that is damaged"),
        (as_json(RUNS[0])[:-9], "an answer that is cut off"),
    ],
)
def test_an_answer_that_cannot_be_read_is_named_and_costs_itself_only(shape, body, words):
    content = shape(*(bytes_of(each) for each in (body, RUNS[1])), **({"as_base64": True} if shape is a_har else {}))

    found = read(content)
    (bad,) = [each.what for each in found if isinstance(each, CaptureError)]
    assert words in bad
    assert " 1: " in bad
    assert [run.run_id for each in found if isinstance(each, Evidence) for run in each.said.runs] == [run_id(2)]


def test_a_body_that_should_be_base64_and_is_not_is_named():
    assert problems(a_har("abc", encoding="base64")) == ["entry 1: a body that should be base64 and is not"]


@pytest.mark.parametrize("body", [b"\x89PNG\xff", gzip.compress(b"{}")[:-5], "{"])
def test_what_other_services_answered_may_be_anything(body):
    assert said(a_cassette(body, url=OTHER_ADDRESS)) == []


@pytest.mark.parametrize(
    "exchange", [None, 1, "text", [], {}, {"request": None}, {"request": {"url": 5}, "response": 5}]
)
@pytest.mark.parametrize("wrap", [lambda each: {"log": {"entries": [each]}}, lambda each: {"interactions": [each]}])
def test_exchanges_of_any_kind_say_nothing_and_raise_nothing(exchange, wrap):
    assert said(as_json(wrap(exchange))) == []


# ---- limits


def test_a_file_past_the_limit_is_skipped_and_named(monkeypatch):
    monkeypatch.setattr(files, "MAX_DOCUMENT", 1 << 20)

    assert "more than 1 MiB" in error(as_json({"run": RUNS[0], "filler": "x" * (1 << 20)}))


def test_a8_json_of_too_many_values_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(bounded_json, "COUNT_FROM", 100)
    monkeypatch.setattr(bounded_json, "MAX_MARKS", 50)

    assert "too many values" in error("[" + "{}," * 60 + "{}]")
    assert usages(as_json({"run": RUNS[0]})) == BOTH[:1]


def test_a1_a_body_that_inflates_past_the_limit_is_named_and_not_inflated_further(monkeypatch):
    monkeypatch.setattr(exchanges, "MAX_TEXT", 1 << 20)

    for compressed in (gzip.compress(bytes(1 << 24)), zstandard.compress(bytes(1 << 24))):
        content = a_cassette(compressed, RUNS[1])
        assert problems(content) == [f"interaction 1: a body of more than {1 << 20} bytes, inflated"]


def test_a_body_of_text_past_the_limit_is_named(monkeypatch):
    monkeypatch.setattr(exchanges, "MAX_TEXT", 1 << 10)

    assert problems(a_har(as_json(RUNS[0]) + " " * (1 << 10))) == ["entry 1: a body of more than 1024 bytes"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"object": "thread.run", "x": [' + "1," * 100 + "1]}", "entry 1: JSON of too many values"),
        ("event: thread.run.created\ndata: [" + "1," * 100 + "1]\n\n", "entry 1: JSON of too many values"),
        ('{"object": "thread.run", "x": "' + "x" * 100, "entry 1: JSON that is cut off or damaged"),
    ],
)
def test_a8_answers_of_too_many_values_are_refused_before_they_are_decoded(monkeypatch, body, words):
    content = a_har(body, as_base64=True)  # so that only the body has many
    monkeypatch.setattr(bounded_json, "MAX_MARKS", 50)
    monkeypatch.setattr(bounded_json, "COUNT_FROM", len(body) - 1)

    assert problems(content) == [words]


def test_a1_bodies_that_are_too_much_together_end_the_file(monkeypatch):
    monkeypatch.setattr(files, "MAX_DOCUMENT", 3 << 20)
    bomb = gzip.compress(b" " * (2 << 20))

    assert problems(a_cassette(*[bomb] * 50)) == [
        f"interaction 2: a body of more than {1 << 20} bytes, inflated",
        "interaction 3: a file of more than 3 MiB, inflated; the rest is skipped",
    ]


def test_a17_aliases_count_for_all_that_they_stand_for():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    assert "more than 2000000 values" in error("\n".join([*levels, "interactions: *a8", ""]))


def test_a17_merge_keys_merge_nothing():
    levels = ["a0: &a0 {k: v}"]
    levels += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], k{n}: v}}" for n in range(1, 9)]

    assert "more than 2000000 values" in error("\n".join([*levels, "interactions: *a8", ""]))


def test_aliases_as_cassettes_have_them_are_read():
    """PyYAML writes what stands twice in memory once, and an alias for the second."""
    shared = interactions(RUNS[0])[0]
    text = yaml.safe_dump({"interactions": [shared, shared]})
    assert "*id" in text

    assert usages(text) == BOTH[:1] * 2


def test_a17_tags_make_nothing():
    text = a_cassette(RUNS[0]) + "extra: !!python/object/apply:os.system ['false']\n"

    assert usages(text) == BOTH[:1]


def test_a_cassette_past_the_limit_of_yaml_is_named(monkeypatch):
    monkeypatch.setattr(plain_yaml, "MAX_BYTES", 1 << 20)

    assert "more than 1 MiB of YAML" in error(a_cassette("x" * (1 << 20)))


def test_a_transcript_past_the_limit_is_named(monkeypatch):
    monkeypatch.setattr(payload, "MAX_TEXT", 1 << 20)

    assert "more than 1 MiB" in error(": " + "x" * (1 << 20))


# ---- plain YAML


@pytest.mark.parametrize(
    "value",
    [
        {
            "a": "text",
            "b": ["x", {"c": "1"}, []],
            "d": {},
            "e": b"\0\xff",
            "f": "two\nlines\n",
            "g": "ünïcödé \U0001f600",
        },
        ["x"],
        "x",
    ],
)
def test_plain_yaml_is_what_was_written(value):
    assert plain_yaml.load(yaml.safe_dump(value).encode()) == value


def test_every_scalar_is_text():
    assert plain_yaml.load(b"{a: 1, b: null, c: true, d: 2024-05-01, e: ~, 5: x}") == {
        "a": "1",
        "b": "null",
        "c": "true",
        "d": "2024-05-01",
        "e": "~",
        "5": "x",
    }


def test_a_key_that_is_no_scalar_costs_itself_only():
    assert plain_yaml.load(b"? [a, b]\n: x\nc: d\n") == {None: "x", "c": "d"}


def test_yaml_of_nothing_is_none():
    assert plain_yaml.load(b"# nothing\n") is None


def test_only_the_first_document_is_read():
    assert plain_yaml.load(b"a: b\n---\n{{{") == {"a": "b"}


# ---- lines


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 0),
        (b"{}", 2),
        (b'{"a"', 0),
        (b"{}\n", 3),
        (b'{}\n{"a": 1}', 11),
        (b'{}\n{"a": ', 3),
        (b"{}\n12", 3),
        (b"{}\n  ", 3),
        (b'{}\n"text"', 9),
    ],
)
def test_a_last_line_is_complete_if_it_is_a_json_value(data, count):
    """A number is not: more of it may come."""
    assert files.complete(data) == count


@pytest.mark.parametrize(
    ("start", "answer"),
    [
        (b'{"a": 1}\n', True),
        (b'\n\n {"a": 1}\n{', True),
        (b"[1]\r\n", True),
        (b'{"a": 1}', False),
        (b'{\n "a": 1}\n', False),
        (b"[\n{}\n]\n", False),
        (b"interactions:\n", False),
        (b"", False),
    ],
)
def test_lines_are_told_by_the_first_one(start, answer):
    assert files.are_lines(start) is answer
