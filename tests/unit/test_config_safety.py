"""No secret shows (A11), and no text, byte or override raises anything but ConfigError (A17)."""

import json
import pickle
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from enricher.config import Config, Secret, examine, load
from enricher.config.model import OtlpExporterConfig
from enricher.errors import ConfigError

CANARY = "canary-4f1d"
EXPORTER = "exporters: {otlp: {endpoint: 'collector:4317'}}\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes config.yaml into the current folder and returns its path."""
    monkeypatch.chdir(tmp_path)

    def to_file(text):
        file = Path("config.yaml")
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return to_file


def lines(path, overrides=(), environ=None):
    return [problem.render() for problem in examine(path, overrides, environ or {}).problems]


def otlp(text):
    """Return a configuration whose exporter has a valid endpoint and, from line 4 on, the given lines."""
    below = "".join(f"    {line}\n" for line in text.splitlines())
    return f"exporters:\n  otlp:\n    endpoint: collector:4317\n{below}"


def test_a11_a_header_value_shows_nowhere_in_a_config(write):
    text = otlp("headers:\n  Authorization: Bearer ${env:TOKEN}")
    config = load(write(text), environ={"TOKEN": CANARY})
    secret = config.exporters.otlp.headers["authorization"]
    shown = [repr(config), str(config), repr(config.model_dump()), config.model_dump_json(), str(secret), f"{secret}"]

    assert secret.get_secret_value() == f"Bearer {CANARY}"
    assert [CANARY in text for text in shown] == [False] * len(shown)
    assert all("[REDACTED]" in text for text in shown)
    assert pickle.loads(pickle.dumps(secret)) == secret


def test_a11_credentials_show_nowhere_in_a_config(write):
    bearer = f"auth: {{bearer: {{token: {CANARY}}}}}"
    users = f"auth: {{basic: {{htpasswd: {{inline: 'a:{CANARY}'}}}}}}"
    protocols = f"receivers: {{otlp: {{protocols: {{grpc: {{{bearer}}}, http: {{{users}}}}}}}}}\n"
    config = load(write(protocols + otlp(f"auth: {{basic: {{username: a, password: {CANARY}}}}}")), environ={})
    shown = [repr(config), str(config), repr(config.model_dump()), config.model_dump_json()]

    assert [CANARY in text for text in shown] == [False] * len(shown)
    assert all(text.count("[REDACTED]") == 3 for text in shown)


@pytest.mark.parametrize(
    "text",
    [
        otlp(f"headers:\n  authorization: *{CANARY}"),
        otlp(f"headers:\n  authorization: &{CANARY} a"),
        otlp(f"headers:\n  authorization: !{CANARY} a"),
        otlp(f"headers:\n  authorization: !{CANARY}!a b"),
        otlp(f"headers:\n  authorization: %{CANARY}"),
        otlp(f"headers:\n  authorization: @{CANARY}"),
        otlp(f"headers:\n  authorization: '{CANARY}"),
        otlp(f"headers:\n  authorization: a: {CANARY}"),
        otlp(f"headers:\n  authorization:{CANARY} a\n  b: c"),
        otlp(f"headers:\n  authorization: [{CANARY}]"),
        otlp(f"headers:\n  authorization: {{{CANARY}: {CANARY}}}"),
        otlp(f"headers:\n  authorization: {CANARY}\u00e9"),
        otlp(f'headers:\n  authorization: "{CANARY}\\ud800"'),
        otlp(f"headers:\n  authorization: ${{{CANARY}}}"),
        otlp(f"headers:\n  authorization: ${{env:{CANARY}}}"),
        otlp("headers:\n  authorization: '${env:TOKEN}\u00e9'"),
        otlp(f"headers: [authorization, {CANARY}]"),
        otlp(f"headers: [authorization: {CANARY}]"),
        otlp(f"headers: {{authorization:Bearer {CANARY}: a, authorization:Bearer {CANARY}: a}}"),
        otlp(f"header:\n  authorization: {CANARY}"),
        otlp(f"tls:\n  headers: {CANARY}"),
        otlp("timeout: ${env:TOKEN}\ncompression: ${env:TOKEN}"),
        f"exporters: {{otlp: {{endpoint: 'https://user:{CANARY}@collector:4317'}}}}",
        f"exporters: {{otlp: {{endpoint: 'https://collector:4317/?key={CANARY}'}}}}",
        f"receivers: {{otlp: {{protocols: {{grpc: {{endpoint: 'user:{CANARY}@a:1'}}}}}}}}",
        otlp(f"auth: {{bearer: {{token: 'Bearer {CANARY}'}}}}"),
        otlp(f"auth: {{bearer: {{token: {CANARY}, filename: a}}}}"),
        otlp(f"auth: {{bearer: {CANARY}}}"),
        otlp(f"auth: {{bearer: {{token: [{CANARY}]}}}}"),
        otlp(f"auth: {{basic: {{username: a, password: {CANARY}\u00e9}}}}"),
        f"receivers: {{otlp: {{protocols: {{grpc: {{auth: {{basic: {{htpasswd: {{inline: [{CANARY}]}}}}}}}}}}}}}}",
        f"%TAG !{CANARY}! a\n%TAG !{CANARY}! a\n---\n{{}}",
    ],
)
def test_a11_an_error_repeats_no_secret(write, text):
    file = write(text)
    with pytest.raises(ConfigError) as caught:
        load(file, [f"exporters.otlp.headers.x={CANARY}\n", f"{CANARY} x"], {"TOKEN": CANARY})
    shown = "".join(traceback.format_exception(caught.value))
    records = json.dumps([p.as_dict() for p in examine(file, (), {"TOKEN": CANARY}).problems])

    assert CANARY not in shown
    assert CANARY not in records


def test_a11_a_validation_error_from_python_repeats_no_secret():
    with pytest.raises(ValidationError) as caught:
        OtlpExporterConfig(endpoint="a:1", headers={"authorization": f"{CANARY}\n"})

    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_secrets_are_equal_by_what_they_hold():
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"


def only_config_error(data, overrides=()):
    """Load the bytes and check that the problems, if any, are printable lines."""
    file = Path("config.yaml")
    file.write_bytes(data)
    problems = [""]
    try:
        load(file, overrides, {"A": "1"})
    except ConfigError as error:
        problems = error.problems

    assert problems
    assert all(line.isprintable() for line in problems)
    # Every kind of mistake has words of its own and knows what was found.
    assert not any("something else" in line or "got None" in line for line in problems)


anything = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
yaml_like = st.text(st.sampled_from("ab:-{}[]\n \"'&*!|>%#?,$.~0\\xu<=\t\ufeff\x85"), max_size=60)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.binary(max_size=4)
)


def trees(model=Config):
    """Strategy for data of nearly the right shape: known keys and others, sections and anything else."""
    below = {
        name: next(
            (
                trees(part)
                for part in (field.annotation, *getattr(field.annotation, "__args__", ()))
                if hasattr(part, "model_fields")
            ),
            scalars,
        )
        for name, field in model.model_fields.items()
    }
    known = st.fixed_dictionaries({}, optional=below)
    return st.one_of(
        known,
        known,
        known,
        scalars,
        st.lists(known, max_size=2),
        st.dictionaries(st.text(max_size=4), scalars, max_size=2),
    )


@anything
@given(st.one_of(st.text(), yaml_like))
@example('"\\UFFFFFFFF"')
@example("%YAML " + "9" * 5000 + ".0\n---\n")
@example("%YAML 1.1\n%YAML 1.1\n---\n")
@example("hold: {max_spans: 0x_}")
@example("hold: {max_spans: !!int ''}")
@example("hold: {enabled: !!bool maybe}")
@example("hold: {max_spans: !!float '.'}")
@example("<<: {hold: {}}")
@example("? \n: ")
@example("hold: {? : }")
def test_a17_no_text_raises_anything_but_config_error(write, text):
    write("")
    only_config_error(text.encode("utf-8", "surrogatepass"))


@anything
@given(st.binary())
def test_a17_no_bytes_raise_anything_but_config_error(write, data):
    write("")
    only_config_error(data)


@anything
@given(trees())
def test_a17_no_tree_raises_anything_but_config_error(write, tree):
    write("")
    only_config_error(yaml.dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))


@anything
@given(
    st.lists(
        st.one_of(
            st.text(), yaml_like, st.tuples(st.sampled_from(["hold", "hold.enabled", "a.b"]), yaml_like).map("=".join)
        ),
        max_size=3,
    )
)
def test_a17_no_override_raises_anything_but_config_error(write, overrides):
    write("hold: {}")
    only_config_error(b"hold: {}", overrides)


def test_a17_aliases_are_refused_before_they_grow(write):
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))

    assert lines(write(f"a0: &a0 [lol]\n{levels}\n")) == [
        (
            "config.yaml:1:5 error a0: aliases (*) and anchors (&) are not accepted; "
            "a text that begins with one of them goes into quotes"
        )
    ]


def test_importing_the_configuration_imports_nothing_heavy():
    heavy = ["grpc", "google.protobuf", "opentelemetry", "rich", "typer", "aiohttp", "sqlite3", "structlog"]
    program = f"import sys, enricher.config; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
