"""Programs that run to their end."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


async def run_to_end(
    name: str, command: list[str | Path], seconds: float, env: Mapping[str, str] | None = None
) -> None:
    """Run a command; `RuntimeError` with its output if it fails, `TimeoutError` if it takes longer than that."""
    process = await asyncio.create_subprocess_exec(
        *command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), seconds)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"{name} ended with {process.returncode}\n{output.decode(errors='replace')}")
