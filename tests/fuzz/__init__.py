"""Coverage-guided fuzzing of what strangers can send: `python -m tests.fuzz TARGET`, see docs/development.md."""
