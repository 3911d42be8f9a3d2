"""Stub."""


def replay() -> None:
    """Not yet."""
