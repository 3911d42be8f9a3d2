"""Durations and endpoints are the Collector's; what is doubtful between sections is said and does not stop."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from enricher.config import Config, Endpoint, RuleConfig, Secret, Severity, examine, load
from enricher.config.model import HoldConfig, OtlpExporterConfig
from enricher.config.values import (
    format_duration,
    parse_duration,
    parse_exporter_endpoint,
    parse_listen_endpoint,
    parse_url_endpoint,
)
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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("10s", 10), ("5m", 300), ("1h30m", 5400), ("1.5s", 1.5), ("2us", 2e-6), ("2µs", 2e-6), ("0s", 0)],
)
def test_durations_are_the_collectors(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "value", ["", "s", "5", "-5s", "+5s", "5 s", "5s ", "\u0665s", "5d", "5S", "1e3s", ".5s", 5, None, 1.0]
)
def test_durations_of_another_form_are_refused(value):
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(value)


@given(st.integers(0, 8760 * 3600 * 1000))
def test_a_duration_is_written_as_it_is_read(milliseconds):
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, rel=1e-12)


@pytest.mark.parametrize("value", ["0", "'0'", "0s", "0ms"])
def test_zero_needs_no_unit_where_it_has_a_meaning(write, value):
    config = load(write(otlp(f"retry_on_failure: {{max_elapsed_time: {value}}}")), environ={})

    assert config.exporters.otlp.retry_on_failure.max_elapsed_time == 0.0


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost:4317", "localhost", 4317),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::1]:4317", "::1", 4317),
        ("[0:0:0:0:0:0:0:1]:65535", "::1", 65535),
        ("my_host.example.:1", "my_host.example.", 1),
    ],
)
def test_listen_endpoints(text, host, port):
    endpoint = parse_listen_endpoint(text)

    assert (endpoint.host, endpoint.port, endpoint.scheme) == (host, port, "")
    assert parse_listen_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "scheme", "target", "uses_tls"),
    [
        ("collector:4317", "", "collector:4317", True),
        ("http://collector:4317", "http", "collector:4317", False),
        ("HTTPS://collector:4317/", "https", "collector:4317", True),
        ("dns:///collector:4317", "dns", "collector:4317", True),
        ("https://[fd00::2]:4317", "https", "[fd00::2]:4317", True),
    ],
)
def test_exporter_endpoints_take_the_collectors_prefixes(text, scheme, target, uses_tls):
    exporter = OtlpExporterConfig(endpoint=text)

    assert (exporter.endpoint.scheme, exporter.endpoint.target) == (scheme, target)
    assert exporter.uses_tls is uses_tls
    assert parse_exporter_endpoint(str(exporter.endpoint)) == exporter.endpoint


def test_https_decides_before_insecure_as_in_the_collector():
    assert OtlpExporterConfig(endpoint="https://a:1", tls={"insecure": True}).uses_tls
    assert not OtlpExporterConfig(endpoint="a:1", tls={"insecure": True}).uses_tls


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("localhost", "the port is missing"),
        ("[::1]", "the port is missing"),
        (":4317", "the host is missing"),
        ("::1:4317", "in brackets"),
        ("[::1:4317", "the port is missing"),
        ("[1.2.3.4]:4317", "a valid IP address"),
        ("1.2.3:4317", "a valid IP address"),
        ("localhost:", "a port between"),
        ("localhost:65536", "a port between"),
        ("localhost:+1", "a port between"),
        ("localhost:\u0664", "a port between"),
        ("a b:1", "a host name"),
        ("-a:1", "a host name"),
        ("a:1/path", "without a path"),
        ("user:pass@a:1", "without a user"),
        ("", "the port is missing"),
    ],
)
def test_endpoints_of_another_form_are_refused(text, expected):
    for parse in (parse_listen_endpoint, parse_exporter_endpoint):
        with pytest.raises(ValueError, match=expected):
            parse(text)


@pytest.mark.parametrize("text", ["http://a:1", "dns:///a:1", "unix:///run/a.sock"])
def test_nothing_listens_on_a_scheme(text):
    with pytest.raises(ValueError, match="without a scheme"):
        parse_listen_endpoint(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ftp://a:1", "alone or after http://"),
        ("dns://a:1", "alone or after http://"),
        ("https://a:1/v1/traces", "without a path"),
        ("https://a", "the port is missing"),
        ("a:0", "between 1 and 65535"),
    ],
)
def test_nothing_is_sent_to_other_schemes_paths_and_port_zero(text, expected):
    with pytest.raises(ValueError, match=expected):
        parse_exporter_endpoint(text)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://collector:4318", "http://collector:4318"),
        ("HTTPS://collector:4318/", "https://collector:4318"),
        ("http://collector", "http://collector:80"),
        ("https://collector/", "https://collector:443"),
        ("https://[::1]", "https://[::1]:443"),
        ("https://[::1]:4318/a/b/", "https://[::1]:4318/a/b"),
        ("https://backend.example.com/api/public/otel", "https://backend.example.com:443/api/public/otel"),
    ],
)
def test_the_url_of_an_http_exporter(text, url):
    endpoint = parse_url_endpoint(text)

    assert str(endpoint) == url
    assert parse_url_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("collector:4318", "beginning with http:// or https://"),
        ("dns:///collector:4318", "beginning with http:// or https://"),
        ("ftp://collector:4318", "beginning with http:// or https://"),
        ("http://", "the host is missing"),
        ("http://collector:0", "a port between 1 and 65535"),
        ("http://collector:x", "a port between 0 and 65535"),
        ("http://user:secret@collector:4318", "credentials go into headers"),
        ("http://user:secret@collector", "credentials go into headers"),
        ("http://collector:4318?token=a", "without a path"),
        ("http://collector:4318/?token=a", "without a query"),
        ("http://collector:4318/a#b", "without a query, a fragment"),
        ("http://collector:4318/a b", "unusual characters"),
        ("http://collector:4318/v1/traces", "without the path of a signal"),
        ("http://collector:4318/prefix/v1/logs/", "without the path of a signal"),
        (5, "expected a URL"),
    ],
)
def test_a_url_of_another_form_is_refused(text, expected):
    with pytest.raises(ValueError, match=expected):
        parse_url_endpoint(text)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("localhost:1", "localhost:1", True),
        ("LOCALHOST:1", "localhost.:1", True),
        ("localhost:1", "127.0.0.1:1", True),
        ("localhost:1", "[::1]:1", True),
        ("127.0.0.1:1", "[::1]:1", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("0.0.0.0:1", "[::1]:1", False),
        ("0.0.0.0:1", "other:1", True),
        ("[::]:1", "127.0.0.1:1", True),
        ("a:1", "b:1", False),
        ("localhost:1", "localhost:2", False),
        ("localhost:0", "localhost:0", False),
    ],
)
def test_endpoints_overlap_if_both_cannot_be_listened_on(one, other, overlap):
    first, second = parse_listen_endpoint(one), parse_listen_endpoint(other)

    assert first.overlaps(second) is overlap
    assert second.overlaps(first) is overlap


@pytest.mark.parametrize(
    ("endpoint", "receiver", "is_loop"),
    [
        ("localhost:4317", "localhost:4317", True),
        ("localhost:4317", "0.0.0.0:4317", True),
        ("0.0.0.0:4317", "127.0.0.1:4317", True),
        ("stage:4317", "stage:4317", True),
        ("collector:4317", "0.0.0.0:4317", False),
        ("10.0.0.7:4317", "0.0.0.0:4317", False),
        ("localhost:14317", "localhost:4317", False),
    ],
)
def test_only_an_endpoint_of_this_machine_is_a_loop(endpoint, receiver, is_loop):
    overrides = [f"exporters.otlp.endpoint={endpoint}", f"receivers.otlp.protocols.grpc.endpoint={receiver}"]
    found = [problem.dotted for problem in examine(None, overrides, {}).problems if "a loop" in problem.message]

    assert found == (["exporters.otlp.endpoint"] if is_loop else [])


@pytest.mark.parametrize(
    "rule",
    [
        {"span_name": "*", "attributes": {"my.key": "*"}},
        {"span_name": "*", "scope": "my.*"},
        {"span_name": "?a"},
        {"scope": "openai"},
        {"attributes": {"my.key": "*"}},
    ],
)
def test_a_rule_with_anything_literal_is_taken(rule):
    assert RuleConfig(name="mine", **rule).name == "mine"


WARNINGS = {
    "A6 every interface": (
        ["receivers.otlp.protocols.grpc.endpoint=0.0.0.0:4317"],
        "receivers.otlp.protocols.grpc.endpoint",
        (
            "everyone who can reach 0.0.0.0:4317 gets in: there is neither TLS nor authentication here; "
            '"localhost:4317" keeps it to this machine'
        ),
    ),
    "A6 every interface, both families": (
        ["telemetry.health.endpoint='[::]:13133'"],
        "telemetry.health.endpoint",
        (
            "everyone who can reach [::]:13133 gets in: there is neither TLS nor authentication here; "
            '"localhost:13133" keeps it to this machine'
        ),
    ),
    "A6 another host": (
        ["telemetry.metrics.endpoint=10.0.0.7:0"],
        "telemetry.metrics.endpoint",
        (
            "everyone who can reach 10.0.0.7:0 gets in: there is neither TLS nor authentication here; "
            '"localhost:0" keeps it to this machine'
        ),
    ),
    "headers in the clear": (
        ["exporters.otlp={endpoint: 'http://collector:4317', headers: {a: b}}"],
        "exporters.otlp.headers",
        "headers travel unencrypted to another machine",
    ),
    "insecure and https": (
        ["exporters.otlp={endpoint: 'https://collector:4317', tls: {insecure: true}}"],
        "exporters.otlp.tls.insecure",
        "has no effect: https:// in the endpoint turns TLS on",
    ),
    "TLS to a Collector beside": (
        ["exporters.otlp.endpoint=localhost:14317"],
        "exporters.otlp.endpoint",
        "TLS is on, and a Collector on this machine rarely speaks it; write http:// or set tls.insecure to true",
    ),
    "hold fills the store": (
        ["storage.max_size_mib=256"],
        "hold.max_size_mib",
        "held spans may fill the store of 256 MiB and leave the queue no room",
    ),
    "patience beyond the clients'": (
        ["delivery.patience=5s"],
        "delivery.patience",
        "clients may give up before their request is put on disk; the Collector's exporter waits 5s",
    ),
}


@pytest.mark.parametrize(("overrides", "dotted", "message"), WARNINGS.values(), ids=WARNINGS)
def test_a_warning_is_said_and_the_config_is_good(overrides, dotted, message):
    examination = examine(None, overrides, {})

    assert [(p.severity, p.dotted, p.message) for p in examination.problems] == [(Severity.WARNING, dotted, message)]
    assert examination.config == load(None, overrides, {})


@pytest.mark.parametrize(
    "overrides",
    [
        ["receivers.otlp.protocols.grpc.endpoint=127.0.0.5:4317"],
        ["receivers.otlp.protocols.grpc.endpoint='[::1]:4317'"],
        ["exporters.otlp={endpoint: 'http://localhost:14317', headers: {a: b}}"],
        ["exporters.otlp={endpoint: 'localhost:14317', tls: {ca_file: a.pem}}"],
        ["exporters.otlp={endpoint: 'collector:4317', tls: {cert_file: a.pem, key_file: b.pem}}"],
        ["hold={enabled: false, wait_duration: 1h}", "storage.max_size_mib=1"],
    ],
)
def test_nothing_is_said_about_what_is_well(overrides):
    assert lines(None, overrides) == []


def test_a_warning_beside_an_error_is_listed_and_not_raised(write):
    file = write("receivers: {otlp: {protocols: {grpc: {endpoint: '0.0.0.0:4317'}}}}\nhold: {max_spans: 0}\n")

    assert [problem.severity for problem in examine(file, environ={}).problems] == [Severity.WARNING, Severity.ERROR]
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert len(caught.value.problems) == 1


def test_the_models_alone_refuse_what_a_file_may_not_hold():
    """Python code that builds a Config gets the same rules, without places."""
    for model, wrong in [(HoldConfig, {"wait_duration": 5}), (HoldConfig, {"unknown": 1}), (RuleConfig, {"name": "a"})]:
        with pytest.raises(ValidationError):
            model(**wrong)
    assert HoldConfig(wait_duration="50ms").wait_duration == 0.05


def test_python_code_may_pass_values_that_are_parsed_already():
    endpoint = Endpoint("localhost", 1)
    exporter = OtlpExporterConfig(endpoint=endpoint, headers={"a": Secret("b")}, tls={"ca_file": Path("a.pem")})

    assert (exporter.endpoint, exporter.headers["a"], exporter.tls.ca_file) == (endpoint, Secret("b"), Path("a.pem"))
    assert Config(telemetry={"metrics": {"endpoint": endpoint}}).telemetry.metrics.endpoint == endpoint
