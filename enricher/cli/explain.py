def explain() -> None:
    """Stub"""
