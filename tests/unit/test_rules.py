"""Which spans are Assistant runs."""

import signal

import pytest

from enricher.otlp.attributes import MAX_ATTRIBUTES
from enricher.rules import BUILT_IN, SUBJECT_LIMIT, Recogniser, Rule
from tests.support.build import (
    OPENAI_SCOPE,
    OPENLLMETRY_VERSIONS,
    a_chat_completion,
    a_list,
    a_message_payload,
    a_run_payload,
    a_span,
    as_json,
    in_world,
    openllmetry_span,
    run_id,
    signals,
    thread_id,
)
from tests.support.families import (
    OPENLLMETRY_LANGCHAIN,
    azure_span,
    kernel_span,
    langchain_span,
    langfuse_span,
    logfire_span,
    mlflow_span,
    older_logfire_span,
    openinference_span,
)

RECOGNISER = Recogniser()


def rule_of(item, recogniser=RECOGNISER):
    rules, _ = recogniser.of_scope(item.scope[0])
    return next((rule.name for rule in rules if rule.matches_span(item.span)), None)


@pytest.fixture
def alarm():
    """End a test that does not come back; how long it takes is not asserted."""

    def give_up(*_):
        raise AssertionError("no answer after 20 s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# built-in rules


@pytest.mark.parametrize("version", OPENLLMETRY_VERSIONS)
@pytest.mark.parametrize("existing", [False, True])
def test_assistant_spans_of_every_version_are_recognised(version, existing):
    run = openllmetry_span(version, existing=existing)
    stream = openllmetry_span(version, existing=existing, stream=True)

    assert rule_of(run) == "openllmetry-assistant-run"
    assert rule_of(stream) == "openllmetry-assistant-run-stream"


def test_spans_that_lost_their_scope_on_their_way_are_recognised_by_their_name():
    assert rule_of(a_span("openai.assistant.run", scope=("", ""))) == "unscoped-assistant-run"
    assert rule_of(a_span("openai.assistant.run_stream", scope=("", ""))) == "unscoped-assistant-run-stream"


@pytest.mark.parametrize(
    ("attributes", "rule"),
    [
        ({"llm.request.type": "chat"}, "forked-assistant-run"),
        ({"gen_ai.operation.name": "chat"}, "forked-assistant-run-genai"),
        ({"gen_ai.request.model": "gpt-4o"}, "forked-assistant-run-model"),
        ({"other": "chat"}, None),
        ({}, None),
    ],
)
def test_spans_of_a_fork_are_recognised_by_their_attributes(attributes, rule):
    assert rule_of(a_span("openai.assistant.run", attributes, scope=("vendor.openai", "1"))) == rule
    assert rule_of(a_span("openai.assistant.run_stream", attributes, scope=("vendor.openai", "1"))) == rule


@pytest.mark.parametrize(
    "name",
    ["openai.chat", "openai.assistant", "openai.assistant.runs", "OpenAI.Assistant.Run", "my openai.assistant.run", ""],
)
def test_other_spans_of_the_instrumentation_are_not_candidates(name):
    assert rule_of(a_span(name, {"llm.request.type": "chat"}, scope=(OPENAI_SCOPE, "0.62.4"))) == (
        # The rules for forks take whatever begins like it.
        "forked-assistant-run" if name == "openai.assistant.runs" else None
    )


def test_the_built_in_rules_need_one_needle_which_is_rare():
    """The scope's name stands in every request of an application that calls the API at all."""
    assert RECOGNISER.needles == (b"openai.assistant.run",)


# patterns


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [
        (None, "anything", True),
        (None, "", True),
        ("", "", True),
        ("", "x", False),
        ("exact", "exact", True),
        ("exact", "exact ", False),
        ("a.c", "abc", False),
        ("*", "", True),
        ("*", "two\nlines", True),
        ("a*c", "abbc", True),
        ("a*c", "ac", True),
        ("a*c", "acd", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a**c", "abc", True),
        ("[ab]*", "[ab] and more", True),
        ("[ab]*", "a", False),
        ("[!a]?", "[!a]x", True),
        ("*.run", "openai.assistant.run", True),
        ("(a|b)*", "(a|b)", True),
        ("é*", "éa", True),
    ],
)
def test_patterns_are_exact_texts_or_globs(pattern, subject, matches):
    assert Rule("r", scope=pattern).matches_scope(subject) is matches
    assert Rule("r", span_name=pattern).matches_span(a_span(subject).span) is matches


@pytest.mark.parametrize(
    ("value", "pattern", "matches"),
    [
        ("chat", "chat", True),
        ("chat", "c*", True),
        ("chat", "completion", False),
        (5, "5", True),
        (True, "*", True),
        (None, "*", True),
        (["a"], "*a*", True),
    ],
)
def test_attributes_are_matched_by_key_and_by_value(value, pattern, matches):
    rule = Rule("r", attributes={"kind": pattern})

    assert rule.matches_span(a_span("s", {"kind": value}).span) is matches
    assert not rule.matches_span(a_span("s", {"other": value}).span)


def test_every_attribute_of_a_rule_must_match():
    rule = Rule("r", span_name="s", attributes={"a": "1", "b": "2"})

    assert rule.matches_span(a_span("s", {"b": "2", "a": "1"}).span)
    assert not rule.matches_span(a_span("s", {"a": "1"}).span)
    assert not rule.matches_span(a_span("other", {"a": "1", "b": "2"}).span)


def test_a21_the_first_value_of_a_key_is_matched():
    rule = Rule("r", attributes={"a": "1"})

    assert rule.matches_span(a_span("s", [("a", "1"), ("a", "2")]).span)
    assert not rule.matches_span(a_span("s", [("a", "2"), ("a", "1")]).span)


def test_a22_attributes_beyond_the_limit_do_not_match():
    filler = [(f"k{n}", n) for n in range(MAX_ATTRIBUTES)]

    assert not Rule("r", attributes={"a": "1"}).matches_span(a_span("s", [*filler, ("a", "1")]).span)


@pytest.mark.usefixtures("alarm")
def test_a16_no_pattern_takes_long():
    subject = a_span("a" * 100_000).span

    assert not Rule("r", span_name="*a" * 40 + "*b").matches_span(subject)
    assert not Rule("r", span_name="a*" * 40 + "?b").matches_span(subject)
    assert Rule("r", span_name="*" * 1000).matches_span(subject)


def test_a16_only_the_beginning_of_a_long_subject_is_matched():
    assert Rule("r", span_name="a*").matches_span(a_span("a" * SUBJECT_LIMIT + "b").span)
    assert not Rule("r", span_name="*b").matches_span(a_span("a" * SUBJECT_LIMIT + "b").span)


# the table


@pytest.mark.parametrize(
    ("rule", "needle"),
    [
        (Rule("r", span_name="invoke_agent"), b"invoke_agent"),
        (Rule("r", span_name="run *.of.*agents"), b"agents"),
        (Rule("r", span_name="run", scope="com.example.agents"), b"com.example.agents"),
        (Rule("r", span_name="*", attributes={"app.kind": "run"}), b"app.kind"),
        (Rule("r", scope="*ab*"), b"ab"),
        (Rule("r", span_name="é*"), "é".encode()),
        (Rule("r", span_name="*"), b""),
        (Rule("r"), b""),
    ],
)
def test_a_needle_is_literal_text_that_every_match_holds(rule, needle):
    assert rule.needle == needle


def test_a_needle_that_holds_another_is_not_searched_for():
    rules = (
        Rule("a", span_name="assistant.run"),
        Rule("b", span_name="my.assistant.run"),
        Rule("c", span_name="agents"),
    )

    assert Recogniser(rules).needles == (b"agents", b"assistant.run")


def test_a_rule_without_literal_text_looks_into_every_request():
    assert Recogniser((Rule("all", span_name="*"), *BUILT_IN)).needles == (b"",)


def test_the_first_rule_that_matches_names_the_span():
    own = Rule("own", span_name="openai.assistant.*")

    assert rule_of(openllmetry_span("0.62.4"), Recogniser((own, *BUILT_IN))) == "own"
    assert rule_of(openllmetry_span("0.62.4"), Recogniser((*BUILT_IN, own))) == "openllmetry-assistant-run"


def test_rules_of_another_scope_are_not_asked():
    rules, needles = Recogniser((Rule("r", scope="agents", span_name="do_work"),)).of_scope("other")

    assert (rules, needles) == ((), ())


def test_the_needle_of_a_scopes_spans_does_not_come_from_the_scope():
    """The scope's name stands above its spans, not in them."""
    named = Rule("r", scope="agents.*", span_name="run")

    assert (named.needle, named.needle_in_span) == (b"agents.", b"run")
    assert Recogniser((named,)).of_scope("agents.v1") == ((named,), (b"run",))
    assert Recogniser((Rule("r", scope="agents"),)).of_scope("agents").needles == (b"",)


def test_a_rule_that_names_a_scope_adds_no_needle_to_the_search():
    """Whether a request has the scope is seen when it is parsed; each needle would be one more pass over its bytes."""
    named = Rule("r", scope="agents.v1", span_name="run")
    recogniser = Recogniser((named, *BUILT_IN))

    assert recogniser.needles == (b"openai.assistant.run",)
    assert recogniser.bound[0] is named
    assert recogniser.of_scope("agents.v1", bound=True) == ((named,), (b"run",))
    assert recogniser.of_scope("other", bound=True) == ((), ())


def test_a_rule_with_a_scope_and_the_needle_of_one_without_is_found_by_the_needle():
    """The scope of OpenLLMetry is in every request of an application that calls the API at all."""
    assert not [rule.name for rule in Recogniser().bound if rule.name.startswith("openllmetry")]


# other instrumentations


@pytest.mark.parametrize(
    ("item", "rule"),
    [
        (openinference_span(a_run_payload()), "openinference-run"),
        (openinference_span(a_run_payload("queued", None)), "openinference-run"),
        (openinference_span(), "openinference-run"),
        (openinference_span(a_message_payload(), name="Message"), None),
        (openinference_span(a_list([a_run_payload()]), name="SyncCursorPage[Run]"), None),
        (openinference_span(a_chat_completion(), name="ChatCompletion"), None),
        (a_span("Run", {"output.value": as_json(a_run_payload())}, scope=("acme.jobs", "1")), None),
        (a_span("POST", {"http.response.body": as_json(a_run_payload())}), None),
        (logfire_span(), "logfire-run"),
        (logfire_span(f"/openai/threads/{thread_id()}/runs"), "logfire-run"),
        (logfire_span(f"/threads/{thread_id()}/runs", answered=None), None),
        (logfire_span("/chat/completions", answered="chatcmpl-1"), None),
        (older_logfire_span(), "logfire-run-by-path"),
        (older_logfire_span(f"/threads/{thread_id()}/runs/{run_id()}/submit_tool_outputs"), "logfire-run-by-path"),
        (older_logfire_span(f"/threads/{thread_id()}/runs"), None),
        (older_logfire_span(f"/threads/{thread_id()}/runs/{run_id()}/steps/step_1", (9, 4), model=None), None),
        (azure_span("process_thread_run"), "azure-agents-process-run"),
        (azure_span("start_thread_run"), "azure-agents-start-run"),
        (azure_span("get_thread_run"), "azure-agents-get-run"),
        (azure_span("submit_tool_outputs"), "azure-agents-submit-outputs"),
        (azure_span("list_messages", None), None),
        (azure_span("start_thread_run", None), None),
        (azure_span("process_thread_run", None, more={"gen_ai.thread.id": thread_id()}), "azure-projects-process-run"),
        (azure_span("start_thread_run", None, more={"gen_ai.thread.id": thread_id()}), None),
        (langchain_span(), "langchain-assistant-openllmetry"),
        (langchain_span(openinference=True), "langchain-assistant-openinference"),
        (a_span("RunnableSequence.workflow", scope=OPENLLMETRY_LANGCHAIN), None),
        (kernel_span(), "semantic-kernel-agent"),
        (kernel_span("agent-1"), None),
        (a_span("invoke_agent tutor", {"gen_ai.agent.id": "asst_1"}, scope=("acme", "1")), None),
    ],
)
def test_spans_of_each_instrumentation_are_told_by_scope_and_what_they_say(item, rule):
    assert rule_of(item) == rule


@pytest.mark.parametrize("build", [langfuse_span, mlflow_span])
def test_spans_of_functions_are_told_by_the_run_that_they_returned(build):
    named = {each.rule for out in in_world(signals([build(a_run_payload())])) for each in out.outcomes}

    assert named <= {"langfuse-observed-run", "mlflow-traced-run"}
    assert len(named) == 1


def test_only_what_holds_a_run_is_looked_into_in_scopes_of_functions():
    assert RECOGNISER.of_scope("langfuse-sdk").needles == (b"openai.assistant.run", b"thread.run")
    assert RECOGNISER.of_scope("langfuse-sdk", bound=True).needles == (b"thread.run",)
    assert RECOGNISER.of_scope("opentelemetry.instrumentation.openai.v1").needles == (b"openai.assistant.run",)
    assert RECOGNISER.of_scope("openinference.instrumentation.openai", bound=True).needles == (b"Run",)
