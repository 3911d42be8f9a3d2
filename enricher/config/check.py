"""What a configuration says across its sections: contradictions are errors, doubtful wishes are warnings."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Final

from enricher.config.problems import Loc, Severity, dotted_path
from enricher.config.values import Endpoint, format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from enricher.config.model import (
        Config,
        GrpcServerConfig,
        HttpServerConfig,
        OtlpExporterConfig,
        OtlpHttpExporterConfig,
    )

_GRPC: Final = ("receivers", "otlp", "protocols", "grpc", "endpoint")
_HTTP: Final = ("receivers", "otlp", "protocols", "http", "endpoint")
_METRICS: Final = ("telemetry", "metrics", "endpoint")
_HEALTH: Final = ("telemetry", "health", "endpoint")
_OTLP: Final = ("exporters", "otlp")
_OTLPHTTP: Final = ("exporters", "otlphttp")
_CLIENT_DEADLINE_SECONDS: Final = 5.0
"""The Collector's exporter gives a try five seconds; the SDKs' give ten in all."""

_NO_MINIMUM: Final = (
    "gRPC takes TLS 1.2 and 1.3 and cannot be told to refuse 1.2; leave it at 1.2, or let a proxy in front refuse it"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that does not hold. `locs` are all keys that it compared, the one to change first."""

    severity: Severity
    locs: tuple[Loc, ...]
    message: str


def check(config: Config) -> list[Finding]:
    """Return everything that is wrong or doubtful between the keys of a valid configuration."""
    findings = [*_rules(config), *_times(config), *_listeners(config)]
    for section, exporter in ((_OTLP, config.exporters.otlp), (_OTLPHTTP, config.exporters.otlphttp)):
        if exporter:
            findings += [*_exporter(exporter, section), *_loops(config, exporter.endpoint, section)]
    return findings


def _error(message: str, *locs: Loc) -> Finding:
    return Finding(Severity.ERROR, locs, message)


def _warning(message: str, *locs: Loc) -> Finding:
    return Finding(Severity.WARNING, locs, message)


def _rules(config: Config) -> Iterator[Finding]:
    names = [rule.name for rule in config.enrichment.rules]
    for index, name in enumerate(names):
        if (first := names.index(name)) < index:
            other: Loc = ("enrichment", "rules", first, "name")
            yield _error(
                f'"{name}" is already the name of rules[{first}]', ("enrichment", "rules", index, "name"), other
            )


def _times(config: Config) -> Iterator[Finding]:
    hold = config.hold
    if hold.enabled and hold.evidence_ttl < hold.wait_duration:
        # Evidence that expires inside the wait makes one of two runs look like the only one.
        yield _error(
            f"{format_duration(hold.evidence_ttl)} is shorter than wait_duration, "
            f"{format_duration(hold.wait_duration)}; evidence must outlive the wait",
            ("hold", "evidence_ttl"),
            ("hold", "wait_duration"),
        )
    if hold.enabled and hold.max_size_mib >= config.storage.max_size_mib:
        yield _warning(
            f"held spans may fill the store of {config.storage.max_size_mib} MiB and leave the queue no room",
            ("hold", "max_size_mib"),
            ("storage", "max_size_mib"),
        )
    if config.delivery.patience >= _CLIENT_DEADLINE_SECONDS:
        yield _warning(
            "clients may give up before their request is put on disk; the Collector's exporter waits 5s",
            ("delivery", "patience"),
        )


def _listeners(config: Config) -> Iterator[Finding]:
    listeners = _listening(config)
    for (first, one), (second, other) in combinations(listeners.items(), 2):
        # The pages share a listener where their endpoints are the same.
        if one.overlaps(other) and not (one == other and {first, second} == {_METRICS, _HEALTH}):
            yield _error(f"{other} is taken already by {dotted_path(first)}, {one}", second, first)
    protocols = config.receivers.otlp.protocols
    guards: dict[Loc, GrpcServerConfig | HttpServerConfig | None] = {_GRPC: protocols.grpc, _HTTP: protocols.http}
    for loc, endpoint in listeners.items():
        if endpoint.is_loopback:
            continue
        guard = guards.get(loc)
        if guard is None or not (guard.tls or guard.auth):
            yield _warning(
                f"everyone who can reach {endpoint} gets in: there is neither TLS nor authentication here; "
                f'"localhost:{endpoint.port}" keeps it to this machine',
                loc,
            )
        elif guard.tls is None:
            yield _warning("credentials travel unencrypted from other machines: there is no TLS here", loc)
    if protocols.grpc is not None and protocols.grpc.tls is not None and protocols.grpc.tls.min_version != "1.2":
        yield _error(_NO_MINIMUM, (*_GRPC[:-1], "tls", "min_version"))


def _listening(config: Config) -> dict[Loc, Endpoint]:
    protocols, telemetry = config.receivers.otlp.protocols, config.telemetry
    return {
        **({_GRPC: protocols.grpc.endpoint} if protocols.grpc else {}),
        **({_HTTP: protocols.http.endpoint} if protocols.http else {}),
        **({_METRICS: telemetry.metrics.endpoint} if telemetry.metrics.level != "none" else {}),
        _HEALTH: telemetry.health.endpoint,
    }


def _loops(config: Config, target: Endpoint, section: Loc) -> Iterator[Finding]:
    for loc, own in _listening(config).items():
        # A wildcard listener covers every name; only a local target is surely this process.
        is_local = target.is_loopback or target.is_wildcard or target.host.lower() == own.host.lower()
        if is_local and target.overlaps(own):
            yield _error(f"a loop: {target.target} is this stage's own {dotted_path(loc)}", (*section, "endpoint"), loc)


def _exporter(otlp: OtlpExporterConfig | OtlpHttpExporterConfig, section: Loc) -> Iterator[Finding]:
    tls, retry = (*section, "tls"), (*section, "retry_on_failure")
    first, longest = otlp.retry_on_failure.initial_interval, otlp.retry_on_failure.max_interval
    if longest < first:
        yield _error(
            f"{format_duration(longest)} is shorter than initial_interval, {format_duration(first)}",
            (*retry, "max_interval"),
            (*retry, "initial_interval"),
        )
    if bool(otlp.tls.cert_file) != bool(otlp.tls.key_file):
        given, missing = ("cert_file", "key_file") if otlp.tls.cert_file else ("key_file", "cert_file")
        yield _error(
            f"a client certificate needs both files, and {missing} is not given", (*tls, given), (*tls, missing)
        )
    if otlp.tls.insecure_skip_verify:
        yield _error(
            "the endpoint's certificate is always verified; name its authority in ca_file, and the name that it is for "
            "in server_name_override",
            (*tls, "insecure_skip_verify"),
        )
    if section == _OTLP and otlp.tls.min_version != "1.2":
        yield _error(_NO_MINIMUM, (*tls, "min_version"))
    if otlp.auth is not None and "authorization" in otlp.headers:
        yield _error("auth writes this header; leave one of the two out", (*section, "headers"), (*section, "auth"))
    yield from _transport(otlp, section)


def _transport(otlp: OtlpExporterConfig | OtlpHttpExporterConfig, section: Loc) -> Iterator[Finding]:
    endpoint, tls, insecure = (*section, "endpoint"), (*section, "tls"), (*section, "tls", "insecure")
    if not otlp.uses_tls:
        for name in ("ca_file", "cert_file", "key_file", "server_name_override", "reload_interval"):
            if getattr(otlp.tls, name) is not None:
                yield _error(
                    "means nothing without TLS, which the endpoint or insecure turns off",
                    (*tls, name),
                    insecure,
                    endpoint,
                )
        if otlp.auth is not None and not otlp.endpoint.is_loopback:
            yield _error(
                "credentials would travel unencrypted to another machine; use TLS",
                (*section, "auth"),
                insecure,
                endpoint,
            )
        if otlp.headers and not otlp.endpoint.is_loopback:
            yield _warning("headers travel unencrypted to another machine", (*section, "headers"), insecure, endpoint)
    elif otlp.tls.insecure:
        yield _warning("has no effect: https:// in the endpoint turns TLS on", insecure, endpoint)
    elif otlp.endpoint.is_loopback and otlp.endpoint.scheme != "https" and otlp.tls.ca_file is None:
        yield _warning(
            "TLS is on, and a Collector on this machine rarely speaks it; write http:// or set tls.insecure to true",
            endpoint,
            insecure,
        )
