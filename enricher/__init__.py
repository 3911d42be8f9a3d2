"""An OTLP stage that mends OpenAI Assistants spans from recorded API answers; read `pipeline.py` first."""

__version__ = "0.1.0"
