"""
Recorded cases, one for every reason, rung and rule, and a few for policies: what goes in, what comes out.

Each is a directory: `input.jsonl` (OTLP/JSON lines, traces and logs), `expected.jsonl`, `outcome.txt` (what `explain`
says), and `config.yaml` where the defaults are not meant. What JSON cannot hold is a `.binpb`, one request. Inputs are
built here and ids and times are fixed, so a case changes only where the code does. After a change that is meant, run

    python tests/golden/generate.py --write

and read the differences line by line: nothing else checks that what is recorded is right.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from enricher.cli.show import explanation
from enricher.config import Config, load
from enricher.otlp import json
from enricher.otlp.shallow import Signal
from enricher.pipeline import Processed, process
from enricher.scan import Settings
from tests.support.build import (
    MODEL,
    QUESTION,
    Item,
    a_list,
    a_log_record,
    a_message_payload,
    a_request,
    a_run_payload,
    a_span,
    a_step_payload,
    a_usage,
    an_http_span,
    an_sse_transcript,
    as_json,
    in_world,
    openllmetry_span,
    run_id,
    signals,
    thread_id,
)
from tests.support.families import (
    azure_span,
    kernel_span,
    langchain_span,
    langfuse_span,
    logfire_span,
    mlflow_span,
    older_logfire_span,
    openinference_span,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from enricher.outcome import Outcome

DIRECTORY = Path(__file__).parent
OLD, NEW = "0.33.12", "0.62.4"
STATELESS = "hold: {enabled: false}\n"
RUN_PATH = f"/threads/{thread_id()}/runs/{run_id()}"


@dataclass(frozen=True)
class Case:
    """One recording: its requests, the configuration as YAML, and the step that is broken in it, if one is."""

    requests: tuple[tuple[Item, ...], ...]
    config: str = ""
    broken: str = ""
    damage: tuple[bytes, bytes] | None = None
    """Bytes of the first request and what they are exchanged for; the case is then recorded as bytes."""


def _case(
    *requests: Sequence[Item], config: str = "", broken: str = "", damage: tuple[bytes, bytes] | None = None
) -> Case:
    return Case(tuple(map(tuple, requests)), config, broken, damage)


def _final(
    number: int = 1, *, span: int = 50, start: float = 18, trace: int = 1, thread: int = 1, parent: int = 0
) -> Item:
    usage = a_usage(1200, 340, cached=64, reasoning=0) if number == 1 else a_usage(900, 250)
    payload = a_run_payload(usage=usage, number=number, thread=thread)
    return an_http_span(payload, number=span, start=start, end=start + 0.5, trace=trace, parent=parent)


def _listing(*messages: object, span: int = 60, start: float = 20, trace: int = 1) -> Item:
    return an_http_span(a_list(messages), number=span, start=start, end=start + 0.5, trace=trace)


def _question() -> dict[str, object]:
    return a_message_payload(QUESTION, number=900, run=None, role="user", created=0)


def _of_a_fork(attributes: dict[str, object]) -> Item:
    return a_span("openai.assistant.run", attributes, number=1, scope=("acme.openai", "1"), start=10, end=20)


COMPLETE = {
    "gen_ai.system": "openai",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": MODEL,
    "gen_ai.response.model": MODEL,
    "gen_ai.usage.prompt_tokens": 1200,
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.completion_tokens": 340,
    "gen_ai.usage.output_tokens": 340,
    "gen_ai.usage.total_tokens": 1540,
    "gen_ai.usage.cache_read_input_tokens": 0,
    "gen_ai.usage.cache_read.input_tokens": 0,
    "gen_ai.usage.reasoning.output_tokens": 0,
    "gen_ai.response.id": run_id(),
    "gen_ai.conversation.id": thread_id(),
    "gen_ai.agent.id": "asst_1",
}

REASONS = {
    "already_present": _case([a_span("openai.assistant.run", COMPLETE, scope=("", ""), number=1)]),
    "from_span": _case([openllmetry_span(NEW, number=1)]),
    # The run is polled until it is finished, then its messages are listed; HTTP bodies are recorded.
    "enriched": _case(
        [
            a_span("ask", number=1, start=9, end=21),
            an_http_span(a_run_payload("queued", None), number=2, parent=1, start=10, end=10.5),
            an_http_span(a_run_payload("in_progress", None), number=3, parent=1, start=14, end=14.5),
            _final(span=4, parent=1),
            an_http_span(a_list([a_message_payload(), _question()]), number=5, parent=1, start=20, end=20.5),
            openllmetry_span(OLD, number=6, parent=1),
        ]
    ),
    "payload_absent": _case([openllmetry_span(OLD, number=1)]),
    "payload_unreadable": _case(
        [openllmetry_span(OLD, number=1), an_http_span(as_json(a_run_payload())[:400], number=2, start=18)]
    ),
    "run_in_progress": _case(
        [openllmetry_span(OLD, number=1), an_http_span(a_run_payload("in_progress", None), number=2, start=12)]
    ),
    "usage_absent": _case(
        [openllmetry_span(OLD, number=1), an_http_span(a_run_payload("expired", None), number=2, start=12)]
    ),
    # Two runs at once with the same answer: nothing on the spans tells which is whose.
    "ambiguous": _case(
        [
            openllmetry_span(OLD, number=1),
            openllmetry_span(OLD, number=2, start=10.5, end=21),
            _final(1, span=3),
            _final(2, span=4, thread=2),
            _listing(a_message_payload(), span=5),
            _listing(a_message_payload(number=2, run=2, thread=2), span=6),
        ]
    ),
    "contradicted": _case([openllmetry_span(OLD, number=1), _final(start=2)]),
    # A run is polled until it is finished, and looked at again afterwards: the first call to show its end owns.
    "not_owner": _case(
        [openinference_span(a_run_payload("queued", None), number=1, trace=1, start=10)],
        [openinference_span(a_run_payload("in_progress", None), number=2, trace=2, start=12)],
        [openinference_span(a_run_payload(), number=3, trace=3, start=14)],
        [openinference_span(a_run_payload(), number=4, trace=4, start=16)],
        [openinference_span(a_list([a_run_payload()]), name="SyncCursorPage[Run]", number=5, trace=5, start=18)],
    ),
    # The rest of the trace is elsewhere, and so may be a second run.
    "not_settled": _case([openllmetry_span(OLD, number=1, parent=9), _final(parent=9)], config=STATELESS),
    "usage_conflict": _case(
        [openllmetry_span(NEW, number=1, stream=True, usage=(700, 90), more={"app.run": as_json(a_run_payload())})]
    ),
    "payload_conflict": _case(
        [
            openllmetry_span(OLD, number=1, more={"app.run_id": run_id()}),
            _final(),
            an_http_span(a_run_payload(usage=(1300, 340)), number=3, start=19),
        ]
    ),
    "span_unreadable": _case(
        [openllmetry_span(OLD, number=1), _final()], damage=(b"About 384,400", b"About \xff\xfe4,400")
    ),
    "step_failed": _case(
        [openllmetry_span(OLD, number=1, more={"app.run": as_json(a_run_payload())}), a_span("ask", number=2)],
        broken="enricher.write.plan",
    ),
}

RUNGS = {
    "payload_on_span": _case([openllmetry_span(OLD, number=1, more={"app.run": as_json(a_run_payload())})]),
    "run_id": _case(
        [openllmetry_span(OLD, number=1, more={"app.run_id": run_id(2)})],
        [_final(1, span=2, trace=2), _final(2, span=3, trace=3)],
    ),
    # Both runs said the same; the last message's id tells them apart.
    "message_id": _case(
        [
            openllmetry_span(NEW, number=1, existing=True, usage=None, messages=[2]),
            _final(1, span=2, thread=1),
            _final(2, span=3, thread=2),
            _listing(a_message_payload(), span=4),
            _listing(a_message_payload(number=2, run=2, thread=2), span=5),
        ]
    ),
    "thread_id": _case(
        [openllmetry_span(OLD, number=1, more={"app.thread_id": thread_id()})],
        [_final(1, span=2, trace=2), _final(2, span=3, trace=3, thread=2)],
    ),
    "answer_text": _case(
        [
            openllmetry_span(OLD, number=1, answers=["One."]),
            openllmetry_span(OLD, number=2, answers=["Two."], start=10.5, end=21),
            _final(1, span=3),
            _final(2, span=4, thread=2),
            _listing(a_message_payload("One."), span=5),
            _listing(a_message_payload("Two.", number=2, run=2, thread=2), span=6),
        ]
    ),
    "only_run_in_trace": _case([openllmetry_span(OLD, number=1), _final()]),
    "only_usage_in_trace": _case(
        [
            a_span("ask", {"app.usage": as_json(a_usage())}, number=1, start=9, end=21),
            openllmetry_span(OLD, number=2, parent=1),
        ]
    ),
    # HTTP spans without a parent are traces of their own.
    "answer_text_across_traces": _case(
        [_final(span=2, trace=2)],
        [openllmetry_span(OLD, number=1)],
        [_listing(a_message_payload(), span=3, trace=3)],
    ),
    # The messages were listed twice, each time in a trace of its own; only the second listing shows the answer.
    "same_start": _case(
        [openllmetry_span(NEW, number=1, usage=None, answers=[], end=15, trace=2)],
        [openllmetry_span(NEW, number=2, usage=None), _final(), _listing(a_message_payload())],
    ),
}

OTHERS = {
    "rule_unscoped": _case(
        [a_span("openai.assistant.run", {"app.run": as_json(a_run_payload())}, number=1, scope=("", ""))]
    ),
    "rule_forked": _case(
        [
            a_span(
                "openai.assistant.run_stream",
                {"llm.request.type": "chat"},
                number=1,
                scope=("acme.openai", "1"),
                start=10,
                end=20,
            )
        ],
        [a_log_record(as_json(a_run_payload()), seconds=20)],
    ),
    "rule_unscoped_stream": _case(
        [a_span("openai.assistant.run_stream", {"app.run": as_json(a_run_payload())}, number=1, scope=("", ""))]
    ),
    "rule_forked_genai": _case([_of_a_fork({"gen_ai.operation.name": "chat"})], [_final()]),
    "rule_forked_model": _case([_of_a_fork({"gen_ai.request.model": MODEL})], [_final()]),
    "rule_of_the_user": _case(
        [a_span("invoke_agent tutor", {"app.run": as_json(a_run_payload())}, number=1, scope=("acme.agents", "1"))],
        config=(
            "enrichment:\n"
            "  rules:\n"
            "    - {name: acme-agents, span_name: invoke_agent*, system: acme, provider: acme.llm}\n"
        ),
    ),
    "openinference_on_azure": _case([openinference_span(a_run_payload(), served_by="azure", number=1)]),
    # Nothing of a stream's answer is recorded but that there was one.
    "openinference_stream": _case([openinference_span(number=1)]),
    "openinference_hidden": _case([openinference_span("__REDACTED__", number=1)]),
    # The usage stands on each look at the finished run, with its details beside it.
    "logfire": _case(
        [
            logfire_span(f"/threads/{thread_id()}/runs", number=1, start=10),
            logfire_span(number=2, start=12),
            logfire_span(usage=a_usage(cached=64, reasoning=32), number=3, start=14),
            logfire_span(usage=a_usage(cached=64, reasoning=32), number=4, start=16),
            logfire_span(f"/threads/{thread_id()}/runs", answered=None, number=5, start=18),
        ]
    ),
    # It writes no ids; the path names the run. What a step took is a part of what the run took.
    "logfire_older": _case(
        [
            older_logfire_span(number=1, start=12),
            older_logfire_span(usage=(1200, 340), number=2, start=14),
            older_logfire_span(usage=(1200, 340), number=3, start=16),
            older_logfire_span(f"{RUN_PATH}/steps/step_1", (900, 250), model=None, number=4, start=18),
        ]
    ),
    # 1.1 calls the whole and its beginning alike; both the whole and the last poll carry the usage.
    "azure_agents": _case(
        [
            azure_span("start_thread_run", "queued", number=2, parent=1, start=10, end=11),
            azure_span("get_thread_run", "in_progress", number=3, parent=1, start=12, end=13),
            azure_span("get_thread_run", "completed", (1200, 340), number=4, parent=1, start=14, end=15),
            azure_span("start_thread_run", "completed", (1200, 340), number=1, start=10, end=15.5),
        ]
    ),
    "azure_agents_process_run": _case(
        [azure_span("process_thread_run", "failed", (0, 0), number=1, start=10, end=15.5)]
    ),
    "azure_agents_tools": _case(
        [
            azure_span("submit_tool_outputs", "queued", number=2, parent=1, start=12, end=13),
            azure_span("get_thread_run", "completed", (1200, 340), number=3, parent=1, start=14, end=15),
        ]
    ),
    # The betas name the thread alone.
    "azure_projects": _case([azure_span("process_thread_run", None, number=1, start=10, end=20)], [_final(trace=2)]),
    # A function and the one that it calls return the same run; a third returns it before it has ended.
    "langfuse": _case(
        [
            langfuse_span(a_run_payload("queued", None), name="start", number=2, parent=1, start=10, end=11),
            langfuse_span(a_run_payload(), name="wait", number=3, parent=1, start=12, end=15),
            langfuse_span(["The answer.", a_run_payload()], number=1, start=10, end=16),
            langfuse_span("The answer.", name="say", number=4, start=16),
        ]
    ),
    # What a function returned as text may be a model's words.
    "mlflow": _case(
        [
            mlflow_span(a_run_payload(), number=1, trace=1),
            mlflow_span(as_json(a_run_payload(number=2)), number=2, trace=2),
        ]
    ),
    # The framework's span names the run; a call shows what it took.
    "langchain_openllmetry": _case(
        [langchain_span(number=1, start=10, end=20)], [openinference_span(a_run_payload(), number=2, trace=2, start=18)]
    ),
    "langchain_openinference": _case(
        [langchain_span(openinference=True, number=1, start=10, end=20), _final(span=2, trace=2)]
    ),
    # Whose API it called is known only with the run.
    "semantic_kernel": _case(
        [kernel_span(number=1, start=10, end=20, trace=1), kernel_span(number=2, start=10, end=20, trace=2), _final()]
    ),
    "several_owners": _case(
        [openinference_span(a_run_payload(), number=1, trace=1)],
        [openinference_span(a_run_payload(), number=2, trace=2)],
        config="enrichment: {duplicates: all}\n",
    ),
    "legacy_keys_only": _case(
        [openllmetry_span(NEW, number=1), _final()], config="enrichment: {conventions: [legacy]}\n"
    ),
    "current_keys_only": _case(
        [openllmetry_span("0.45.6", number=1), _final()], config="enrichment: {conventions: [current]}\n"
    ),
    "provenance": _case([openllmetry_span(OLD, number=1), _final()], config="enrichment: {provenance: true}\n"),
    "swapped_usage_kept": _case([openllmetry_span("0.50.1", number=1), _final()]),
    "swapped_usage_repaired": _case(
        [
            openllmetry_span("0.50.1", number=1),
            an_http_span(a_run_payload(), number=2, start=18),
            _listing(a_message_payload()),
        ],
        config="enrichment: {on_conflict: repair}\n",
    ),
    "model_repaired": _case(
        [openllmetry_span("0.45.6", number=1, more={"app.run": as_json(a_run_payload(model="o3-mini"))})],
        config="enrichment: {on_conflict: repair}\n",
    ),
    "stream_repaired": _case(
        [openllmetry_span(NEW, number=1, stream=True, usage=(0, 0), more={"app.run": as_json(a_run_payload())})],
        config="enrichment: {on_conflict: repair}\n",
    ),
    "genuine_zero": _case(
        [openllmetry_span(OLD, number=1), an_http_span(a_run_payload("failed", (0, 0)), number=2, start=18)]
    ),
    "azure": _case(
        [
            openllmetry_span(OLD, number=1, existing=True),
            an_http_span(a_run_payload(), url=f"https://tutors.openai.azure.com/openai{RUN_PATH}", number=2, start=18),
        ]
    ),
    "payload_in_a_transcript": _case(
        [
            openllmetry_span("0.34.0", number=1, stream=True, existing=True, usage=(0, 0)),
            an_http_span(
                an_sse_transcript(
                    a_run_payload("in_progress", None), a_step_payload(), a_message_payload(), a_run_payload()
                ),
                number=2,
                method="POST",
                start=10,
                end=19,
            ),
        ]
    ),
    "payload_in_a_log_record": _case(
        [a_log_record(as_json(a_run_payload()), seconds=20)], [openllmetry_span(OLD, number=1)]
    ),
    "payload_in_a_prompt": _case(
        [
            openllmetry_span(
                OLD, number=1, answers=[as_json(a_run_payload())], more={"input.value": as_json(a_run_payload())}
            )
        ]
    ),
}

CASES = REASONS | RUNGS | OTHERS


def recorded_input(case: Case) -> dict[str, bytes]:
    """Return the files from which the case is run, by name."""
    if case.damage is not None:
        return {"input.binpb": a_request(case.requests[0]).replace(*case.damage)}
    files = {"input.jsonl": _lines(signals(*case.requests))}
    return files | ({"config.yaml": case.config.encode()} if case.config else {})


def run(directory: Path, broken: str = "") -> dict[str, bytes]:
    """Return what comes out of the case that stands in the directory, as the files that should hold it."""
    config = load(directory / "config.yaml") if (directory / "config.yaml").exists() else Config()
    settings = Settings.from_config(config)
    requests = read(directory, "input")
    breaking: AbstractContextManager[object] = nullcontext()
    if broken:
        breaking = mock.patch(broken, side_effect=RuntimeError("broken for this case"))
    with breaking:
        if config.hold.enabled:
            processed = in_world(requests, settings)
        else:
            processed = [process(signal, request, settings) for signal, request in requests]
    out = [(signal, each.request) for (signal, _), each in zip(requests, processed, strict=True)]
    files = {"outcome.txt": _explained(processed).encode()}
    if (directory / "input.binpb").exists():
        return files | {"expected.binpb": out[0][1]}
    return files | {"expected.jsonl": _lines(out)}


def read(directory: Path, stem: str) -> list[tuple[Signal, bytes]]:
    """Return the requests of a case's file."""
    if (directory / f"{stem}.binpb").exists():
        return [(Signal.TRACES, (directory / f"{stem}.binpb").read_bytes())]
    return [json.decode(line, None) for line in (directory / f"{stem}.jsonl").read_bytes().splitlines()]


def _lines(requests: Iterable[tuple[Signal, bytes]]) -> bytes:
    return b"".join(json.encode(signal, request) + b"\n" for signal, request in requests)


def _explained(processed: Iterable[Processed]) -> str:
    return "\n".join(_paragraph(outcome) for each in processed for outcome in each.outcomes)


def _paragraph(outcome: Outcome) -> str:
    name = outcome.span_name or "a span that cannot be decoded"
    lines = [f"{name} {outcome.span_id}".rstrip(), *(f"  {label:<13}{text}" for label, text in explanation(outcome))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def write(name: str) -> None:
    """Write a case's files anew."""
    case, directory = CASES[name], DIRECTORY / name
    directory.mkdir(exist_ok=True)
    for old in directory.iterdir():
        old.unlink()
    for file, data in recorded_input(case).items():
        (directory / file).write_bytes(data)
    for file, data in run(directory, case.broken).items():
        (directory / file).write_bytes(data)


def main() -> int:
    """Write all cases if asked to."""
    parser = argparse.ArgumentParser(description="Record what comes out of the golden cases.")
    parser.add_argument("--write", action="store_true", help="overwrite every case; read the differences afterwards")
    if not parser.parse_args().write:
        parser.print_usage(sys.stderr)
        sys.stderr.write("nothing written: --write is missing\n")
        return 2
    for name in CASES:
        write(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
