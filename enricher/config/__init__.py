"""
The configuration: `load` it or `examine` it, then pass the frozen `Config` on.

Below every other part except the wire; imports nothing but pydantic and PyYAML, because the stage starts with it.
"""

from enricher.config.load import Examination, examine, load
from enricher.config.model import Config, RuleConfig
from enricher.config.problems import Problem, Severity
from enricher.config.values import Endpoint, Secret

__all__ = ["Config", "Endpoint", "Examination", "Problem", "RuleConfig", "Secret", "Severity", "examine", "load"]
