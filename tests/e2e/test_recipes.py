"""The recipes of docs/recording-payloads.md, run as they are printed, with the real instrumentations."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

import enricher
from enricher.config import load
from enricher.otlp.shallow import Signal
from tests.support import recipes
from tests.support.build import MODEL, attributes, items_of, run_id

pytestmark = pytest.mark.e2e

DOCUMENT = Path(__file__).parents[2] / "docs" / "recording-payloads.md"
BLOCKS = dict(
    re.findall(r"<!-- recipe: (\w+) -->\n```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
)
RECIPES = sorted(BLOCKS.keys() - {"app"})
USAGE = {
    "gen_ai.usage.prompt_tokens": 1200,
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.completion_tokens": 340,
    "gen_ai.usage.output_tokens": 340,
    "gen_ai.usage.total_tokens": 1540,
    "gen_ai.usage.cache_read_input_tokens": 64,
    "gen_ai.usage.cache_read.input_tokens": 64,
}


@pytest.fixture(scope="session")
def interpreter():
    """Of the session, so that it is made before the proxy settings are taken away."""
    return recipes.python()


def recorded(interpreter, block, tmp_path):
    """Run the application with a recipe, and return the folder of what it exported."""
    folder = tmp_path / "spans"
    folder.mkdir()
    script = "\n".join([recipes.PRELUDE.format(own_provider="logfire" in block), BLOCKS["app"], block])
    with recipes.Api(folder) as api:
        done = subprocess.run(
            [interpreter, "-c", script],
            cwd=tmp_path,
            env={
                **os.environ,
                "OPENAI_API_KEY": "of-no-use",
                "OPENAI_BASE_URL": f"{api.url}/v1",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"{api.url}/otlp",
                "OTEL_SERVICE_NAME": "tutor",
                "LOGFIRE_SEND_TO_LOGFIRE": "false",
                "LOGFIRE_CONSOLE": "false",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def spans(requests):
    return [raw for signal, request in requests if signal is Signal.TRACES for raw in items_of(request)]


def usage(raw):
    return {key: value for key, value in attributes(raw).items() if ".usage." in key}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_gives_the_run_span_its_usage_and_no_other(recipe, interpreter, tmp_path):
    folder = recorded(interpreter, BLOCKS[recipe], tmp_path)
    files = f"[{tmp_path}/cassettes/*.yaml]" if recipe == "vcr" else "[]"
    replayed = enricher.replay(folder, load(None, [f"enrichment.payload_files={files}"]))

    assert replayed.failures == []
    mended = {Span.FromString(raw).name: usage(raw) for raw in spans(replayed.requests) if usage(raw)}
    assert mended == {"openai.assistant.run": USAGE}
    (run,) = [raw for raw in spans(replayed.requests) if Span.FromString(raw).name == "openai.assistant.run"]
    assert attributes(run)["gen_ai.response.id"] == run_id()
    assert attributes(run)["gen_ai.response.model"] == MODEL


def test_without_a_recipe_the_span_has_no_usage(interpreter, tmp_path):
    """What the recipes are for: the premise of the test above."""
    folder = recorded(interpreter, 'ask("asst_4f8d2c6a1b9e3057d4c8a6f2", "How far is the moon?")', tmp_path)
    replayed = enricher.replay(folder)

    assert [str(each.reason) for each in replayed.outcomes] == ["payload_absent"]
    assert [usage(raw) for raw in spans(replayed.requests) if usage(raw)] == []


def test_no_key_is_recorded_in_a_cassette(interpreter, tmp_path):
    recorded(interpreter, BLOCKS["vcr"], tmp_path)

    assert "of-no-use" not in (tmp_path / "cassettes" / "run.yaml").read_text(encoding="utf-8")
