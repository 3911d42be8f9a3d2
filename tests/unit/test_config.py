"""Every mistake is named with its place, all at once; what is right becomes a frozen Config; secrets never show."""

import errno
import json
import os
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from enricher.config import Config, Problem, Severity, examine, load
from enricher.config.problems import in_order, printable
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


# --- what is right ---


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n", "{}\n", "receivers:\nhold:\nexporters:\n"])
def test_nothing_written_means_the_defaults(write, text):
    assert load(write(text), environ={}) == Config()
    assert lines(write(text)) == []


def test_no_file_means_the_defaults():
    config = load(None, environ={})

    assert config == Config()
    assert str(config.receivers.otlp.protocols.grpc.endpoint) == "localhost:4317"
    assert config.receivers.otlp.protocols.grpc.max_recv_msg_size_mib == 64
    assert (config.hold.wait_duration, config.hold.evidence_ttl, config.delivery.patience) == (10.0, 300.0, 2.0)


def test_without_exporters_the_default_file_is_written_and_known_to_be_a_default():
    exporters = load(None, environ={}).exporters

    assert exporters.otlp is None
    assert exporters.file.path == Path("enricher-data/out.jsonl")
    assert exporters.is_defaulted


def test_a_named_exporter_is_the_only_one():
    config = load(None, ["exporters.otlp.endpoint=collector:4317"], {})

    assert config.exporters.file is None
    assert not config.exporters.is_defaulted


def test_a_file_exporter_without_keys_is_named_all_the_same(write):
    exporters = load(write("exporters:\n  file:\n"), environ={}).exporters

    assert exporters.file.path == Path("enricher-data/out.jsonl")
    assert not exporters.is_defaulted


def test_an_http_exporter_alone_is_the_only_one(write):
    exporters = load(write("exporters: {otlphttp: {endpoint: 'https://backend.example.com/otel/'}}")).exporters

    assert (exporters.otlp, exporters.file, exporters.is_defaulted) == (None, None, False)
    assert str(exporters.otlphttp.endpoint) == "https://backend.example.com:443/otel"
    assert exporters.otlphttp.uses_tls


def test_file_beside_otlp_is_kept(write):
    text = "exporters: {otlp: {endpoint: 'collector:4317'}, file: {path: out.jsonl}}"
    exporters = load(write(text), environ={}).exporters

    assert (exporters.otlp.endpoint.target, exporters.file.path) == ("collector:4317", Path("out.jsonl"))


def test_an_empty_section_or_list_means_its_defaults(write):
    text = otlp("tls:\nheaders:\nretry_on_failure:\n") + "enrichment:\n  conventions:\n  rules:\nhold:\n"
    config = load(write(text), environ={})

    assert config == Config(exporters={"otlp": {"endpoint": "collector:4317"}})


@pytest.mark.parametrize(
    ("text", "listens"),
    [
        ("protocols: {grpc: {endpoint: 'localhost:14317'}}", {"grpc"}),
        ("protocols: {http: }", {"http"}),
        ("protocols: {grpc: , http: {}}", {"grpc", "http"}),
        ("protocols: {}", {"grpc", "http"}),
        ("protocols:", {"grpc", "http"}),
    ],
)
def test_a_protocol_that_is_named_alone_is_the_only_one(write, text, listens):
    protocols = load(write(f"receivers:\n  otlp: {{{text}}}\n")).receivers.otlp.protocols

    assert {name for name in ("grpc", "http") if getattr(protocols, name)} == listens


def test_the_port_of_a_protocol_that_does_not_listen_is_free(write):
    text = "receivers: {otlp: {protocols: {grpc: }}}\ntelemetry: {health: {endpoint: 'localhost:4318'}}\n"

    assert lines(write(text)) == []


def test_a_written_config_is_read_back_as_it_was(write):
    config = load(None, ["exporters.otlp.endpoint=https://[::1]:443", "hold.wait_duration=1m1s500ms"], {})
    read = load(write(yaml.safe_dump(config.model_dump(mode="json", exclude_none=True))), environ={})

    assert read == config


def test_json_is_yaml(write):
    text = json.dumps({"hold": {"wait_duration": "3s"}, "enrichment": {"payload_files": ["\U0001f600*.json"]}})
    config = load(write(text), environ={})

    assert (config.hold.wait_duration, config.enrichment.payload_files) == (3.0, ("\U0001f600*.json",))


def test_a_byte_order_mark_is_no_part_of_the_first_key(write):
    assert load(write("\ufeffhold: {max_spans: 7}"), environ={}).hold.max_spans == 7


def test_config_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().hold.enabled = False


# --- mistakes, each with its whole line ---


def mistake(name, text, expected):
    """Return a case: a file's text and the one line that it gives, without the file's name."""
    return pytest.param(text, [f"config.yaml:{expected}"], id=name)


MISTAKES = [
    mistake(
        "unknown key with a near one",
        "hold:\n  wait_durations: 5s\n",
        "2:3 error hold.wait_durations: unknown key, valid keys here: enabled, wait_duration, evidence_ttl, "
        'max_spans, max_size_mib; did you mean "wait_duration"?',
    ),
    mistake(
        "unknown key near to none",
        "processor: {batch: {}}\n",
        "1:1 error processor: unknown key, valid keys here: receivers, enrichment, hold, exporters, "
        "delivery, storage, telemetry",
    ),
    mistake(
        "section of the Collector's",
        "service: {pipelines: {}}\n",
        "1:1 error service: unknown key, valid keys here: receivers, enrichment, hold, exporters, "
        "delivery, storage, telemetry; the Collector has such a section, the stage has one pipeline and no extensions: "
        "leave it out",
    ),
    mistake(
        "duration without unit",
        otlp("timeout: 5"),
        '4:14 error exporters.otlp.timeout: expected a duration such as "5s", got 5 (int)',
    ),
    mistake(
        "duration with a wrong unit",
        "hold: {wait_duration: 5 minutes}",
        '1:23 error hold.wait_duration: expected a duration such as "5s", got "5 minutes"',
    ),
    mistake(
        "duration as a fraction",
        "hold: {wait_duration: 0.5}",
        '1:23 error hold.wait_duration: expected a duration such as "5s", got 0.5 (float)',
    ),
    mistake(
        "duration of zero",
        "delivery: {patience: 0s}",
        '1:22 error delivery.patience: expected a duration longer than 0s, got "0s"',
    ),
    mistake(
        "endless duration",
        "hold: {evidence_ttl: 100000h}",
        '1:22 error hold.evidence_ttl: expected a duration of at most "8760h", got "100000h"',
    ),
    mistake(
        "endpoint without port",
        "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: localhost\n",
        '5:19 error receivers.otlp.protocols.grpc.endpoint: expected host:port such as "localhost:4317" (the '
        'port is missing), got "localhost"',
    ),
    mistake(
        "endpoint as a number",
        "telemetry: {metrics: {endpoint: 8888}}",
        '1:33 error telemetry.metrics.endpoint: expected host:port such as "localhost:4317", got 8888 (int)',
    ),
    mistake(
        "endpoint required",
        "exporters:\n  otlp:\n",
        "2:3 error exporters.otlp.endpoint: required, but not given",
    ),
    mistake(
        "misspelt endpoint is one mistake",
        "exporters:\n  otlp:\n    endpoints: collector:4317\n",
        "3:5 error exporters.otlp.endpoints: unknown key, valid keys here: endpoint, tls, compression, "
        'timeout, headers, auth, retry_on_failure, sending_queue; did you mean "endpoint"?',
    ),
    mistake(
        "tls without files",
        "receivers: {otlp: {protocols: {grpc: {tls: {cert_file: a}}}}}",
        "1:39 error receivers.otlp.protocols.grpc.tls.key_file: required, but not given",
    ),
    mistake(
        "auth with nothing in it",
        "receivers: {otlp: {protocols: {grpc: {auth: }}}}",
        "1:44 error receivers.otlp.protocols.grpc.auth: exactly one of bearer and basic is needed, and none is given",
    ),
    mistake(
        "empty token",
        "exporters: {otlp: {endpoint: 'localhost:1', tls: {insecure: true}, auth: {bearer: {token: null}}}}",
        "1:83 error exporters.otlp.auth.bearer: exactly one of token and filename is needed, and none is given",
    ),
    mistake(
        "token with its scheme is one mistake",
        "exporters: {otlp: {endpoint: 'localhost:1', tls: {insecure: true}, auth: {bearer: {token: 'Bearer a'}}}}",
        "1:91 error exporters.otlp.auth.bearer.token: expected the token alone, without spaces or the scheme before "
        "it, got text (not shown)",
    ),
    mistake(
        "token over plaintext",
        "exporters: {otlp: {endpoint: 'http://far:1', auth: {bearer: {token: a}}}}",
        "1:52 error exporters.otlp.auth: credentials would travel unencrypted to another machine; use TLS",
    ),
    mistake(
        "token twice",
        "exporters: {otlp: {endpoint: 'far:1', headers: {Authorization: a}, auth: {bearer: {token: a}}}}",
        "1:48 error exporters.otlp.headers: auth writes this header; leave one of the two out",
    ),
    mistake(
        "skipped verification",
        "exporters: {otlp: {endpoint: 'far:1', tls: {insecure_skip_verify: true}}}",
        "1:67 error exporters.otlp.tls.insecure_skip_verify: the endpoint's certificate is always verified; name its "
        "authority in ca_file, and the name that it is for in server_name_override",
    ),
    mistake(
        "minimum version of gRPC",
        "receivers: {otlp: {protocols: {grpc: {tls: {cert_file: a, key_file: b, min_version: '1.3'}}}}}",
        "1:85 error receivers.otlp.protocols.grpc.tls.min_version: gRPC takes TLS 1.2 and 1.3 and cannot be told to "
        "refuse 1.2; leave it at 1.2, or let a proxy in front refuse it",
    ),
    mistake(
        "choice",
        "enrichment:\n  on_conflict: overwrite\n",
        '2:16 error enrichment.on_conflict: expected "keep" or "repair", got "overwrite"',
    ),
    mistake(
        "flag in quotes",
        'hold: {enabled: "true"}',
        '1:17 error hold.enabled: expected true or false, got "true"',
    ),
    mistake(
        "number in quotes",
        "hold: {max_spans: '5'}",
        '1:19 error hold.max_spans: expected a whole number, got "5"',
    ),
    mistake(
        "flag for a number",
        "hold: {max_spans: yes}",
        "1:19 error hold.max_spans: expected a whole number, got yes (bool)",
    ),
    mistake(
        "number too small",
        "storage: {max_size_mib: 0}",
        "1:25 error storage.max_size_mib: expected a number of at least 1, got 0 (int)",
    ),
    mistake(
        "number too large",
        "receivers: {otlp: {protocols: {grpc: {max_recv_msg_size_mib: 2048}}}}",
        "1:62 error receivers.otlp.protocols.grpc.max_recv_msg_size_mib: expected a number of at most 2047, "
        "got 2048 (int)",
    ),
    mistake(
        "number of 5000 digits",
        f"hold: {{max_spans: {'9' * 5000}}}",
        '1:19 error hold.max_spans: expected a whole number, got "' + "9" * 60 + '..."',
    ),
    mistake(
        "nothing where a value is needed",
        "hold:\n  wait_duration:\n",
        '2:17 error hold.wait_duration: expected a duration such as "5s", got nothing (null)',
    ),
    mistake(
        "text for a section",
        "hold: off and away",
        '1:7 error hold: expected a section of keys, got "off and away"',
    ),
    mistake(
        "list for a section",
        "hold: [a]",
        "1:7 error hold: expected a section of keys, got a list",
    ),
    mistake(
        "text for a list",
        "enrichment: {payload_files: a.json}",
        '1:29 error enrichment.payload_files: expected a list such as [a, b], got "a.json"',
    ),
    mistake(
        "empty text",
        "enrichment: {payload_files: [a.json, '']}",
        '1:38 error enrichment.payload_files[1]: expected text that is not empty, got ""',
    ),
    mistake(
        "number for text",
        "enrichment: {payload_attributes: [7]}",
        "1:35 error enrichment.payload_attributes[0]: expected text in quotes, got 7 (int)",
    ),
    mistake(
        "no convention",
        "enrichment: {conventions: []}",
        "1:27 error enrichment.conventions: expected at least one value, got an empty list",
    ),
    mistake(
        "convention twice",
        "enrichment: {conventions: [legacy, legacy]}",
        "1:27 error enrichment.conventions: a value is listed twice",
    ),
    mistake(
        "empty path",
        "storage: {directory: ''}",
        '1:22 error storage.directory: expected a path, got ""',
    ),
    mistake(
        "path with a zero byte",
        'storage: {directory: "a\\0b"}',
        '1:22 error storage.directory: expected a path, got "a\\u0000b"',
    ),
    mistake(
        "key twice",
        "hold:\n  max_spans: 1\n  enabled: true\n  max_spans: 2\n",
        "4:3 error hold.max_spans: the key is written twice, first at config.yaml:2:3",
    ),
    mistake(
        "rule without conditions",
        "enrichment:\n  rules:\n    - name: mine\n",
        "3:7 error enrichment.rules[0]: the rule needs at least one of scope, span_name and attributes",
    ),
    mistake(
        "rule for every span",
        "enrichment:\n  rules:\n    - {name: mine, span_name: '*?*'}\n",
        "3:7 error enrichment.rules[0]: the rule would take every span; write some literal text into scope "
        "or span_name, or add attributes",
    ),
    mistake(
        "rule with a wrong name",
        "enrichment:\n  rules:\n    - {name: My Rule, scope: a}\n",
        '3:14 error enrichment.rules[0].name: expected a name of a-z, 0-9, ".", "_" and "-", at most 64, '
        'beginning with a letter or digit, got "My Rule"',
    ),
    mistake(
        "two rules of one name",
        "enrichment:\n  rules:\n    - {name: a, scope: x}\n    - {name: b, scope: x}\n    - {name: a, scope: x}\n",
        '5:14 error enrichment.rules[2].name: "a" is already the name of rules[0]',
    ),
    mistake(
        "key of a rule's attribute",
        "enrichment: {rules: [{name: a, attributes: {http.url: 5}}]}",
        '1:55 error enrichment.rules[0].attributes["http.url"]: expected text in quotes, got 5 (int)',
    ),
    mistake(
        "environment variable not set",
        otlp("timeout: ${env:TIMEOUT}"),
        "4:14 error exporters.otlp.timeout: the environment variable TIMEOUT is not set; set it, or give a "
        "default: ${env:TIMEOUT:-default}",
    ),
    mistake(
        "substitution from elsewhere",
        otlp("timeout: ${TIMEOUT}"),
        "4:14 error exporters.otlp.timeout: only ${env:NAME} and ${env:NAME:-default} are substituted; a "
        "dollar sign itself is written $$",
    ),
    mistake(
        "substitution without end",
        otlp("timeout: ${env:TIMEOUT"),
        "4:14 error exporters.otlp.timeout: only ${env:NAME} and ${env:NAME:-default} are substituted; a "
        "dollar sign itself is written $$",
    ),
    mistake(
        "evidence shorter than the wait",
        "hold: {wait_duration: 10m}",
        "1:23 error hold.evidence_ttl: 5m is shorter than wait_duration, 10m; evidence must outlive the wait",
    ),
    mistake(
        "retry intervals",
        otlp("retry_on_failure: {initial_interval: 1m}"),
        "4:42 error exporters.otlp.retry_on_failure.max_interval: 30s is shorter than initial_interval, 1m",
    ),
    mistake(
        "certificate without key",
        otlp("tls: {cert_file: a.pem}"),
        "4:22 error exporters.otlp.tls.cert_file: a client certificate needs both files, and key_file is not given",
    ),
    mistake(
        "authority without TLS",
        otlp("tls: {insecure: true, ca_file: a.pem}"),
        "4:36 error exporters.otlp.tls.ca_file: means nothing without TLS, which the endpoint or insecure turns off",
    ),
    mistake(
        "one endpoint twice",
        "telemetry:\n  health: {endpoint: 127.0.0.1:4317}\n",
        "2:22 error telemetry.health.endpoint: 127.0.0.1:4317 is taken already by "
        "receivers.otlp.protocols.grpc.endpoint, localhost:4317",
    ),
    mistake(
        "too large a body",
        "receivers: {otlp: {protocols: {http: {max_request_body_size_mib: 2048}}}}",
        "1:66 error receivers.otlp.protocols.http.max_request_body_size_mib: expected a number of at most 2047, "
        "got 2048 (int)",
    ),
    mistake(
        "loop over HTTP",
        "exporters:\n  otlphttp: {endpoint: 'http://localhost:4318/prefix'}\n",
        "2:24 error exporters.otlphttp.endpoint: a loop: localhost:4318 is this stage's own "
        "receivers.otlp.protocols.http.endpoint",
    ),
    mistake(
        "HTTP endpoint without scheme",
        "exporters:\n  otlphttp: {endpoint: 'collector:4318'}\n",
        '2:24 error exporters.otlphttp.endpoint: expected a URL such as "https://collector:4318", beginning with '
        'http:// or https://, got "collector:4318"',
    ),
    mistake(
        "HTTP endpoint of one signal",
        "exporters:\n  otlphttp: {endpoint: 'http://collector:4318/v1/traces'}\n",
        "2:24 error exporters.otlphttp.endpoint: expected the URL without the path of a signal, which is added for "
        'each, got "http://collector:4318..."',
    ),
    mistake(
        "intervals of the HTTP exporter",
        "exporters:\n  otlphttp: {endpoint: 'http://c:1', retry_on_failure: {max_interval: 1s}}\n",
        "2:71 error exporters.otlphttp.retry_on_failure.max_interval: 1s is shorter than initial_interval, 5s",
    ),
    mistake(
        "loop",
        "exporters:\n  otlp: {endpoint: 'http://127.0.0.1:4317'}\n",
        "2:20 error exporters.otlp.endpoint: a loop: 127.0.0.1:4317 is this stage's own "
        "receivers.otlp.protocols.grpc.endpoint",
    ),
    mistake(
        "header name with its value",
        otlp(f"headers: {{authorization:{CANARY} x: ''}}"),
        '4:15 error exporters.otlp.headers["..."]: a header name is of letters, digits, dots, underscores '
        "and hyphens; is the space after its colon missing?",
    ),
    mistake(
        "header value without name",
        otlp(f"headers: {{{CANARY}}}"),
        "4:15 error exporters.otlp.headers: a header has no value",
    ),
    mistake(
        "header twice",
        otlp("headers: {x-a: '1', X-A: '2'}"),
        "4:14 error exporters.otlp.headers: a header is named twice; upper and lower case are the same name",
    ),
    mistake(
        "header of gRPC",
        otlp("headers: {grpc-timeout: '1'}"),
        "4:15 error exporters.otlp.headers.grpc-timeout: header names beginning with grpc- belong to gRPC itself",
    ),
    mistake(
        "header with a line break",
        otlp(f"headers:\n  authorization: |\n    {CANARY}"),
        "5:22 error exporters.otlp.headers.authorization: expected printable ASCII only (is there a line "
        "break at its end?), got text (not shown)",
    ),
    mistake(
        "header as a number",
        otlp("headers: {x-tenant: 42}"),
        "4:25 error exporters.otlp.headers.x-tenant: expected text in quotes, got int (not shown)",
    ),
    mistake(
        "headers as text",
        otlp(f"headers: {CANARY}"),
        "4:14 error exporters.otlp.headers: expected a map of names to texts, got text (not shown)",
    ),
    mistake(
        "tab",
        "hold:\n\tmax_spans: 1\n",
        "2:1 error: not YAML: while scanning for the next token, found character '\\t' that cannot start any token",
    ),
    mistake(
        "alias",
        "hold: &a {}\ndelivery: *a\n",
        "1:7 error hold: aliases (*) and anchors (&) are not accepted; a text that begins with one of them "
        "goes into quotes",
    ),
    mistake(
        "glob without quotes",
        "enrichment: {rules: [{name: a, attributes: {k: * }}]}",
        "1:49 error: aliases (*) and anchors (&) are not accepted; a text that begins with one of them goes "
        "into quotes",
    ),
    mistake(
        "substitution in braces",
        "hold: {wait_duration: ${env:A}}",
        "1:24 error: not YAML: while parsing a flow mapping, expected ',' or '}', but got '{'; inside braces "
        "${env:NAME} goes into quotes",
    ),
    mistake(
        "tag",
        "storage: {directory: !!python/name:os.system x}",
        "1:22 error storage.directory: tags (!) are not accepted; a text that begins with one goes into quotes",
    ),
    mistake(
        "map as a key",
        "? {a: b}\n: c\n",
        "1:3 error: expected a plain key, found a list or a map in its place",
    ),
    mistake(
        "second document",
        "hold: {}\n---\nhold: {}\n",
        "2:1 error: expected one document, found a second one",
    ),
    mistake(
        "no map at all",
        "just text\n",
        "1:1 error: expected a map of sections, such as receivers and exporters",
    ),
    mistake(
        "deep nesting",
        "[" * 50_000,
        f"1:34 error {'[0]' * 33}: nested more than 32 levels deep",
    ),
    mistake(
        "not UTF-8",
        b"hold:\n  # \xe9\n",
        "2:5 error: expected UTF-8 text, found the byte 0xe9",
    ),
    mistake(
        "UTF-16",
        "hold: {}".encode("utf-16"),
        "1:1 error: expected UTF-8 text, found the byte 0xff",
    ),
    mistake(
        "control character",
        "hold: {}\n# \x1b[2J\n",
        "2:3 error: not YAML: the character '\\x1b' is not allowed",
    ),
    mistake(
        "escape out of range",
        'storage: {directory: "\\UFFFFFFFF"}',
        "1:1 error: not YAML: an escape or a number is out of range",
    ),
    mistake(
        "half a surrogate pair",
        'storage: {directory: "\\ud800"}',
        "1:22 error storage.directory: half a surrogate pair (\\uD800 to \\uDFFF) is not text",
    ),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_mistake_is_named_with_its_place(write, text, expected):
    assert lines(write(text)) == expected
    with pytest.raises(ConfigError) as caught:
        load(Path("config.yaml"), environ={})
    assert caught.value.problems == expected


def test_all_problems_come_at_once_from_top_to_bottom(write):
    """Structure, values and rules between sections are reported together; a fault hides only what depends on it."""
    text = """\
hold:
  max_spans: many
  wait: 1s
receivers:
  otlp:
    protocols:
      grpc: {endpoint: 4317}
      http: {endpoint: 'localhost:8888'}
exporters:
  otlp:
    endpoint: http://localhost:13133
    compression: ${env:COMPRESSION}
"""
    found = [(p.line, p.column, p.dotted) for p in examine(write(text), ["delivery.patience=7"], {}).problems]

    assert found == [
        (2, 14, "hold.max_spans"),
        (3, 3, "hold.wait"),
        (7, 24, "receivers.otlp.protocols.grpc.endpoint"),
        (8, 24, "telemetry.metrics.endpoint"),
        (11, 15, "exporters.otlp.endpoint"),
        (12, 18, "exporters.otlp.compression"),
        (None, None, "delivery.patience"),
    ]


@pytest.mark.parametrize(
    "telemetry",
    [
        "{metrics: {endpoint: 'localhost:9000'}, health: {endpoint: 'localhost:9000'}}",
        "{metrics: {level: none, endpoint: 'localhost:4317'}}",
    ],
    ids=["one listener for both pages", "metrics that are switched off"],
)
def test_endpoints_that_do_not_get_into_each_others_way_are_no_mistake(write, telemetry):
    assert lines(write(f"telemetry: {telemetry}\n")) == []


def test_rules_between_sections_are_not_asked_about_faulty_values(write):
    """The receiver's default would make a loop, and it is not what was meant."""
    receiver = "receivers: {otlp: {protocols: {grpc: {endpoint: 5}}}}\n"
    file = write(f"{receiver}exporters: {{otlp: {{endpoint: 'http://localhost:4317'}}}}\n")

    assert [problem.dotted for problem in examine(file).problems] == ["receivers.otlp.protocols.grpc.endpoint"]


def test_a_header_that_is_wrong_does_not_hide_one_that_is_named_twice(write):
    """Rules about a whole map are looked at once its faulty values are out."""
    found = [problem.dotted for problem in examine(write(otlp("headers: {a: 5, x-b: '1', X-B: '2'}"))).problems]

    assert found == ["exporters.otlp.headers", "exporters.otlp.headers.a"]


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    missing = tmp_path / "missing.yaml"

    assert lines(missing) == [f"{missing} error: the file cannot be read: {os.strerror(errno.ENOENT)}"]
    assert lines(tmp_path) == [f"{tmp_path} error: the file cannot be read: {os.strerror(errno.EISDIR)}"]


def test_a_file_that_is_too_large_is_a_problem(write):
    assert lines(write("#" * (1 << 20))) == []
    assert lines(write("#" * (1 << 20) + "\n")) == ["config.yaml error: the file is larger than 1 MiB"]


def test_a_path_that_is_none_is_a_problem():
    assert lines(Path("a\0b")) == ["a\\x00b error: the file cannot be read: not a path"]


# --- substitution ---


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${env:N}", 7),
        ("${env:UNSET:-8}", 8),
        ("${env:ONE}${env:N}", 17),
        ("1${env:UNSET:-}0", 10),
    ],
)
def test_a_plain_scalar_is_typed_after_substitution(write, written, value):
    config = load(write(f"hold:\n  max_spans: {written}\n"), environ={"N": "7", "ONE": "1"})

    assert config.hold.max_spans == value


def test_a_quoted_scalar_stays_text_after_substitution(write):
    assert lines(write('hold: {max_spans: "${env:N}"}'), environ={"N": "7"}) == [
        "config.yaml:1:19 error hold.max_spans: expected a whole number, got the value of ${env:N}"
    ]


def test_a_text_from_the_environment_may_look_like_a_number(write):
    text = otlp("headers:\n  authorization: ${env:TOKEN}\ntls:\n  ca_file: ${env:TOKEN}")
    exporter = load(write(text), environ={"TOKEN": "0123"}).exporters.otlp

    assert exporter.headers["authorization"].get_secret_value() == "0123"
    assert exporter.tls.ca_file == Path("0123")


def test_an_empty_variable_is_nothing(write):
    """It is not silently a default where a value is needed, and it is where none is."""
    text = otlp("timeout: ${env:EMPTY}\ntls:\n  ca_file: ${env:EMPTY}")

    assert lines(write(text), environ={"EMPTY": ""}) == [
        (
            'config.yaml:4:14 error exporters.otlp.timeout: expected a duration such as "5s", '
            "got the empty value of ${env:EMPTY}"
        )
    ]


def test_two_dollars_are_one_and_what_comes_from_the_environment_is_not_read_again(write):
    text = "enrichment: {payload_files: ['$${env:A}', '$5', 'a$$', '${env:A}']}"
    config = load(write(text), environ={"A": "${env:B}$$"})

    assert config.enrichment.payload_files == ("${env:A}", "$5", "a$", "${env:B}$$")


def test_the_environment_of_the_process_is_the_default(write, monkeypatch):
    monkeypatch.setenv("ENRICHER_TEST_SPANS", "12")

    assert load(write("hold:\n  max_spans: ${env:ENRICHER_TEST_SPANS}\n")).hold.max_spans == 12


# --- overrides ---


def test_overrides_take_the_place_of_what_is_written(write):
    overrides = [
        "hold.wait_duration=30s",
        "enrichment.conventions=[current]",
        "exporters.otlp={endpoint: 'http://other:4317', compression: gzip}",
        "exporters.otlp.timeout=${env:TIMEOUT}",
        "telemetry.logs.level=debug",
        "telemetry.logs.level=warn",
        "storage.directory=a=b",
    ]
    config = load(write("hold: {wait_duration: 1s, max_spans: 5}\n" + EXPORTER), overrides, {"TIMEOUT": "9s"})

    assert (config.hold.wait_duration, config.hold.max_spans) == (30.0, 5)
    assert config.enrichment.conventions == ("current",)
    assert (str(config.exporters.otlp.endpoint), config.exporters.otlp.compression) == ("http://other:4317", "gzip")
    assert config.exporters.otlp.timeout == 9.0
    assert config.telemetry.logs.level == "warn"
    assert config.storage.directory == Path("a=b")


def test_a_wrong_override_is_named_by_its_key(write):
    assert lines(
        write("hold: {max_spans: x}"), ["exporters.otlp.endpoint=collector", "hold.enabled=", "hold.x.y=1"]
    ) == [
        'config.yaml:1:19 error hold.max_spans: expected a whole number, got "x"',
        (
            "--set exporters.otlp.endpoint error exporters.otlp.endpoint: "
            'expected host:port such as "localhost:4317" (the port is missing), got "collector"'
        ),
        "--set hold.enabled error hold.enabled: expected true or false, got nothing (null)",
        (
            "--set hold.x.y error hold.x: unknown key, valid keys here: enabled, wait_duration, evidence_ttl, "
            "max_spans, max_size_mib"
        ),
    ]


@pytest.mark.parametrize(
    "override",
    [
        CANARY,
        f"a b={CANARY}",
        f"={CANARY}",
        f".a={CANARY}",
        f"a..b={CANARY}",
        "exporters.otlp.headers" + ".a" * 5000 + "=b",
        "",
    ],
)
def test_an_override_of_another_form_is_not_repeated(override):
    (line,) = lines(None, [override])

    assert line == "--set error: expected key.path=value, such as exporters.otlp.endpoint=localhost:14317"


def test_an_override_that_is_not_yaml_is_a_problem():
    assert lines(None, ["hold.max_spans=[1"]) == [
        (
            "--set hold.max_spans error hold.max_spans: not YAML: while parsing a flow sequence, "
            "expected ',' or ']', but got '<stream end>'"
        )
    ]


def test_an_override_replaces_a_scalar_in_the_place_of_a_section(write):
    assert load(write("hold: 5"), ["hold.max_spans=3"], {}).hold.max_spans == 3


# --- problems ---


def test_a_problem_is_a_record_for_machines():
    problem = Problem("config.yaml", 3, 7, Severity.ERROR, "hold.max_spans", "expected a\nnumber")

    assert json.loads(json.dumps(problem.as_dict())) == {
        "path": "config.yaml",
        "line": 3,
        "column": 7,
        "severity": "error",
        "key": "hold.max_spans",
        "message": "expected a\\nnumber",
    }


def test_a15_a_problem_is_one_line_without_control_characters(write):
    text = 'hold: {max_spans: "a\\e[2J\\nconfig.yaml:1:1 error: forged"}'
    (line,) = lines(write(text))

    assert line.isprintable()
    assert printable("a\r\n\x1b\u2028\ud800b") == "a\\r\\n\\x1b\\u2028\\ud800b"


def test_problems_are_ordered_by_place_and_those_without_come_last():
    problems = [
        Problem("--set b", None, None, Severity.ERROR, "b", ""),
        Problem("f", 2, 1, Severity.ERROR, "c", ""),
        Problem("--set a", None, None, Severity.ERROR, "a", ""),
        Problem("f", 1, 10, Severity.ERROR, "d", ""),
        Problem("f", 1, 9, Severity.ERROR, "e", ""),
    ]

    assert [problem.dotted for problem in in_order(problems)] == ["e", "d", "c", "a", "b"]
