"""Recorded payloads: what they say, where they sit, how they are found again."""
