"""What a run cost, by the price list of the package genai-prices, which the extra `prices` installs. No network."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from decimal import Decimal

    from enricher.audit import Price
    from enricher.coverage import Tokens

PROVIDERS: Final = {"openai": "openai", "azure.ai.openai": "azure", "az.ai.agents": "azure"}
"""Providers as spans name them, and as the list does. Of any other the price is unknown, whatever the model's name."""


def load() -> tuple[Price, str] | None:
    """Return the look-up and the version of the list; None if the package is not installed."""
    try:
        import genai_prices  # noqa: PLC0415 - optional
    except ImportError:
        return None

    def price(provider: str, model: str, tokens: Tokens, start: int) -> Decimal | None:
        usage = genai_prices.Usage(
            input_tokens=tokens.prompt, output_tokens=tokens.completion, cache_read_tokens=tokens.cached
        )
        # A span without a start is priced as one of today.
        at = datetime.fromtimestamp(start / 1e9, UTC) if start else None
        try:
            return genai_prices.calc_price(
                usage, model, provider_id=PROVIDERS[provider], genai_request_timestamp=at
            ).total_price
        except (KeyError, LookupError, ValueError):
            # An unknown provider or model, or more cached tokens than there are in the prompt.
            return None

    return price, genai_prices.__version__
