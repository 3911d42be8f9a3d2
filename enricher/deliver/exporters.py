"""The exporters that a configuration names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enricher.deliver.file_exporter import FileExporter
from enricher.deliver.grpc_exporter import GrpcExporter

if TYPE_CHECKING:
    from enricher.config.model import Config, OtlpExporterConfig
    from enricher.deliver import Exporter


def exporters_of(config: Config) -> dict[str, Exporter]:
    """Return the exporters by name, which is that of their queue; the configuration makes sure that there is one."""
    otlp, file = config.exporters.otlp, config.exporters.file
    exporters: dict[str, Exporter] = {}
    if otlp is not None:
        exporters["otlp"] = grpc_exporter(otlp)
    if file is not None:
        exporters["file"] = FileExporter(file.path)
    return exporters


def grpc_exporter(otlp: OtlpExporterConfig) -> GrpcExporter:
    """Return the gRPC exporter of `exporters.otlp`."""
    return GrpcExporter(
        otlp.endpoint.target,
        insecure=not otlp.uses_tls,
        timeout=otlp.timeout,
        compression=otlp.compression,
        headers={name: value.get_secret_value() for name, value in otlp.headers.items()},
        ca_file=otlp.tls.ca_file,
        cert_file=otlp.tls.cert_file,
        key_file=otlp.tls.key_file,
        server_name_override=otlp.tls.server_name_override,
    )


def destination(config: Config) -> str:
    """Return in words where requests go."""
    otlp, file = config.exporters.otlp, config.exporters.file
    named = [f"otlp {otlp.endpoint}" if otlp is not None else "", f"file {file.path}" if file is not None else ""]
    return " and ".join(filter(None, named))
