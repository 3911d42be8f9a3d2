"""
The configuration as users write it, one class a section; keys and defaults follow the Collector's.

A built `Config` is frozen and valid by itself. Rules between sections are in `check`, reading and positions in `load`.
The meaning of each key for operators is `docs/configuration.md`; a test holds both together.
"""

import re
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, StrictInt, model_validator

from enricher.config.access import ClientAuthConfig, ServerAuthConfig, ServerTlsConfig, TlsConfig
from enricher.config.section import Section
from enricher.config.values import (
    Duration,
    DurationOrZero,
    Endpoint,
    ExporterEndpoint,
    HeaderValue,
    ListenEndpoint,
    PathText,
    Secret,
    Text,
    UrlEndpoint,
)

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_RULE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

Convention = Literal["legacy", "current"]
AtLeastOne = Annotated[StrictInt, Field(ge=1)]


class GrpcServerConfig(Section):
    """Where OTLP/gRPC is received."""

    endpoint: ListenEndpoint = Endpoint("localhost", 4317)
    max_recv_msg_size_mib: Annotated[StrictInt, Field(ge=1, le=2047)] = 64
    """Larger requests are refused; gRPC counts a message's bytes in 31 bits."""
    health: StrictBool = False
    """Whether `grpc.health.v1` is offered, to whoever asks."""
    tls: ServerTlsConfig | None = None
    auth: ServerAuthConfig | None = None


class HttpServerConfig(Section):
    """Where OTLP/HTTP is received."""

    endpoint: ListenEndpoint = Endpoint("localhost", 4318)
    max_request_body_size_mib: Annotated[StrictInt, Field(ge=1, le=2047)] = 64
    """Larger bodies are refused, as they come or inflated; protobuf counts a message's bytes in 31 bits."""
    tls: ServerTlsConfig | None = None
    auth: ServerAuthConfig | None = None


class ProtocolsConfig(Section):
    """The two OTLP transports. With neither named both listen; with one named that one alone, as in the Collector."""

    grpc: GrpcServerConfig | None = None
    http: HttpServerConfig | None = None

    @model_validator(mode="after")
    def _default_to_both(self) -> Self:
        if self.grpc is None and self.http is None:
            # Past the frozen __setattr__.
            object.__setattr__(self, "grpc", GrpcServerConfig())
            object.__setattr__(self, "http", HttpServerConfig())
        return self


class OtlpReceiverConfig(Section):
    """The OTLP receiver."""

    protocols: ProtocolsConfig = ProtocolsConfig()


class ReceiversConfig(Section):
    """What the stage listens to."""

    otlp: OtlpReceiverConfig = OtlpReceiverConfig()


def _rule_name(name: str) -> str:
    if not _RULE_NAME.fullmatch(name):
        raise ValueError('expected a name of a-z, 0-9, ".", "_" and "-", at most 64, beginning with a letter or digit')
    return name


class RuleConfig(Section):
    """
    One more way to recognise an Assistant run's span; every condition given must hold.

    Texts are exact or globs with `*` and `?`. `system` and `provider` are what is written for spans of this rule.
    """

    name: Annotated[Text, AfterValidator(_rule_name)]
    scope: Text | None = None
    span_name: Text | None = None
    attributes: dict[Text, Text] = {}  # noqa: RUF012 - pydantic copies it
    """Attribute key to glob of its value; `*` asks for presence only."""
    system: Text | None = None
    provider: Text | None = None

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if self.scope is None and self.span_name is None and not self.attributes:
            raise ValueError("the rule needs at least one of scope, span_name and attributes")
        # An attribute key is literal, so a rule with attributes never takes every span.
        if not self.attributes and not f"{self.scope or ''}{self.span_name or ''}".strip("*?"):
            raise ValueError(
                "the rule would take every span; write some literal text into scope or span_name, or add attributes"
            )
        return self


def _no_repeats(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a value is listed twice")
    return values


class EnrichmentConfig(Section):
    """What is recognised, read and written."""

    conventions: Annotated[tuple[Convention, ...], Field(min_length=1), AfterValidator(_no_repeats)] = (
        "legacy",
        "current",
    )
    provenance: StrictBool = False
    on_conflict: Literal["keep", "repair"] = "keep"
    duplicates: Literal["owner", "all"] = "owner"
    rules: tuple[RuleConfig, ...] = ()
    """Tried before the built-in ones, in this order."""
    payload_attributes: tuple[Text, ...] = ()
    payload_files: tuple[Text, ...] = ()
    """Globs of recorded answers."""


class HoldConfig(Section):
    """How long and how much waits for evidence."""

    enabled: StrictBool = True
    wait_duration: Duration = 10.0
    evidence_ttl: Duration = 300.0
    """HTTP spans end before the run's span does, so evidence must outlive the longest run."""
    max_spans: AtLeastOne = 100_000
    max_size_mib: AtLeastOne = 256


class RetryConfig(Section):
    """Backoff of the drain task."""

    enabled: StrictBool = True
    initial_interval: Duration = 5.0
    max_interval: Duration = 30.0
    max_elapsed_time: DurationOrZero = 0.0
    """Zero never gives up. The Collector's default of five minutes would drop acknowledged spans."""


class SendingQueueConfig(Section):
    """The durable queue in front of the exporter; its size is `storage.max_size_mib`."""

    enabled: StrictBool = True
    num_consumers: Annotated[StrictInt, Field(ge=1, le=64)] = 4


def _header_name(name: str) -> str:
    # The texts repeat no name: a value pasted into the place of a name must not be shown (A11).
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(
            "a header name is of letters, digits, dots, underscores and hyphens; is the space after its colon missing?"
        )
    if name.lower().startswith("grpc-"):
        raise ValueError("header names beginning with grpc- belong to gRPC itself")
    return name


HeaderName = Annotated[str, AfterValidator(_header_name)]


def _lower_names(headers: dict[str, Secret]) -> dict[str, Secret]:
    lower = {name.lower(): value for name, value in headers.items()}
    if len(lower) < len(headers):
        raise ValueError("a header is named twice; upper and lower case are the same name")
    return lower


class OtlpExporterConfig(Section):
    """The OTLP/gRPC endpoint downstream."""

    endpoint: ExporterEndpoint
    tls: TlsConfig = TlsConfig()
    compression: Literal["none", "gzip"] = "none"
    timeout: Duration = 5.0
    """One try's deadline."""
    headers: Annotated[dict[HeaderName, HeaderValue], AfterValidator(_lower_names)] = {}  # noqa: RUF012 - as above
    """Sent with every request, names in lower case."""
    auth: ClientAuthConfig | None = None
    retry_on_failure: RetryConfig = RetryConfig()
    sending_queue: SendingQueueConfig = SendingQueueConfig()

    @property
    def uses_tls(self) -> bool:
        """Whether to speak TLS; a scheme in the endpoint decides before `tls.insecure`, as in the Collector."""
        return self.endpoint.scheme == "https" or (self.endpoint.scheme != "http" and not self.tls.insecure)


class OtlpHttpExporterConfig(Section):
    """The OTLP/HTTP endpoint downstream."""

    endpoint: UrlEndpoint
    tls: TlsConfig = TlsConfig()
    compression: Literal["none", "gzip", "zstd"] = "none"
    timeout: Duration = 30.0
    """One try's deadline."""
    headers: Annotated[dict[HeaderName, HeaderValue], AfterValidator(_lower_names)] = {}  # noqa: RUF012 - as above
    auth: ClientAuthConfig | None = None
    retry_on_failure: RetryConfig = RetryConfig()
    sending_queue: SendingQueueConfig = SendingQueueConfig()

    @property
    def uses_tls(self) -> bool:
        """Whether to speak TLS, which the URL alone decides."""
        return self.endpoint.scheme == "https"


class FileExporterConfig(Section):
    """The file that spans are written to."""

    path: PathText = Path("./enricher-data/out.jsonl")


class ExportersConfig(Section):
    """Where spans go; with nothing named, to the default file."""

    otlp: OtlpExporterConfig | None = None
    otlphttp: OtlpHttpExporterConfig | None = None
    file: FileExporterConfig | None = None

    @model_validator(mode="after")
    def _default_to_file(self) -> Self:
        if self.otlp is None and self.otlphttp is None and self.file is None:
            # Past the frozen __setattr__, which also keeps "file" out of model_fields_set.
            object.__setattr__(self, "file", FileExporterConfig())
        return self

    @property
    def is_defaulted(self) -> bool:
        """Whether no exporter was named, so that the default file is written; worth telling the operator."""
        return self.file is not None and "file" not in self.model_fields_set


class DeliveryConfig(Section):
    """When a request is put on disk instead of waited for."""

    patience: Duration = 2.0


class StorageConfig(Section):
    """The durable store of held spans and queued requests."""

    directory: PathText = Path("./enricher-data")
    max_size_mib: AtLeastOne = 1024


class LogsConfig(Section):
    """The stage's own log, on stderr."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    format: Literal["console", "json"] = "console"


class MetricsConfig(Section):
    """The page with the stage's own metrics."""

    level: Literal["none", "normal"] = "normal"
    """None: there is no page. The Collector's other levels would show the same."""
    endpoint: ListenEndpoint = Endpoint("localhost", 8888)


class HealthConfig(Section):
    """The page that says whether the stage is alive and ready."""

    endpoint: ListenEndpoint = Endpoint("localhost", 13133)


class TelemetryConfig(Section):
    """What the stage says about itself."""

    logs: LogsConfig = LogsConfig()
    metrics: MetricsConfig = MetricsConfig()
    health: HealthConfig = HealthConfig()


class Config(Section):
    """The whole configuration; `Config()` is what an empty file means."""

    receivers: ReceiversConfig = ReceiversConfig()
    enrichment: EnrichmentConfig = EnrichmentConfig()
    hold: HoldConfig = HoldConfig()
    exporters: ExportersConfig = ExportersConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    storage: StorageConfig = StorageConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
