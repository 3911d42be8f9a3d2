"""What a stage says of itself."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.support.stage import Stage


async def numbers_of(stage: Stage) -> Counter[str]:
    """Return the samples of its page of metrics by name without `enricher_`, summed over their labels."""
    page = f"http://{stage.config['telemetry']['metrics']['endpoint']}/metrics"
    async with aiohttp.ClientSession() as session, session.get(page) as response:
        text = await response.text()
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name.removeprefix("enricher_")] += sample.value
    return found
