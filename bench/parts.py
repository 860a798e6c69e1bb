"""Parts of a measurement that need a process of their own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any, Final

TIMEOUT_S: Final = 600


async def run_part(module: str, *arguments: str, processor: int | None = None) -> dict[str, Any]:
    """Run ``python -m module arguments`` on one processor, if one is given; returns the JSON object that it prints.

    Raises RuntimeError if it fails, TimeoutError if it takes too long.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        if processor is not None:
            os.sched_setaffinity(process.pid, {processor})
        async with asyncio.timeout(TIMEOUT_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"python -m {module} {' '.join(arguments)} ended with code {process.returncode}")
    result: dict[str, Any] = json.loads(out)
    return result
