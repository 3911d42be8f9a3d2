"""The OTLP wire. Knows nothing of Assistants."""
