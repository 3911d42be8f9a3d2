"""Stub."""


def explain() -> None:
    """Not yet."""
