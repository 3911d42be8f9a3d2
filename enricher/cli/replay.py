def replay() -> None:
    """Stub"""
