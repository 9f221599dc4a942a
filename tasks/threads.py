"""Work in threads that a cancellation does not leave half done."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def to_its_end(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a thread; if we are cancelled meanwhile, wait for its end all the same.

    A thread cannot be stopped. Were it left alone, what it starts would appear after whoever
    cleans up has looked.
    """
    return await until_told(lambda: None, function, *args, **kwargs)


async def until_told(
    tell: Callable[[], object], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do as `to_its_end`; `tell` is called at a cancellation, so that the function ends soon."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        tell()
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # it is nobody's any more
        raise
