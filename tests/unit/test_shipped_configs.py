"""Every file in `config/` is one that its program takes; the Collector's own are validated by it in `tests/e2e`."""

from pathlib import Path

import pytest
import yaml

from enricher.config import Severity, examine, load

FILES = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))


def is_collectors(file: Path) -> bool:
    """Tell whether a file is a Collector's: only those have pipelines, under `service`."""
    return "service" in yaml.safe_load(file.read_text(encoding="utf-8"))


STAGES = [file for file in FILES if not is_collectors(file)]
COLLECTORS = [file for file in FILES if is_collectors(file)]


def test_there_are_files_of_both_programs() -> None:
    assert STAGES
    assert COLLECTORS


@pytest.mark.parametrize("file", STAGES, ids=lambda file: file.name)
def test_the_stages_files_load_without_an_error_or_a_warning(file: Path) -> None:
    load(file, environ={})

    assert examine(file, environ={}).problems == []


@pytest.mark.parametrize("file", COLLECTORS, ids=lambda file: file.name)
def test_a_collectors_file_is_none_of_the_stages(file: Path) -> None:
    """A user who mixes them up is told so by the section that only a Collector has."""
    problems = examine(file, environ={}).problems

    assert any(each.severity is Severity.ERROR and "service" in each.render() for each in problems)


@pytest.mark.parametrize("file", COLLECTORS, ids=lambda file: file.name)
def test_stages_behind_a_collector_listen_where_it_sends(file: Path) -> None:
    """The first stage takes the file's ports as they are, and sends to where the Collector sends what goes past."""
    exporters = yaml.safe_load(file.read_text(encoding="utf-8"))["exporters"]
    stage = load(file.with_name("stage-between-collectors.yaml"), environ={})

    listens = str(stage.receivers.otlp.protocols.grpc.endpoint)
    assert listens in exporters["load_balancing"]["resolver"]["static"]["hostnames"]
    assert stage.exporters.otlp is not None
    assert str(stage.exporters.otlp.endpoint) == exporters["otlp_grpc"]["endpoint"]
