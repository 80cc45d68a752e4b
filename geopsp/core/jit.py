"""Functions compiled by numba: on first use, kept on disk, and for a first run on all cores.

`jit` compiles a function when it is called with types that it was not compiled for. `jit("i8[::1]", ...)` also declares
the types that it is called with, so that `compile_ahead` can compile it, in several processes, before the first call.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from numba import njit, typeof, types
from numba.core.caching import FunctionCache, NullCache

from geopsp.core.parallel import cpu_count
from geopsp.core.progress import progress_bar
from geopsp.core.text import format_count

logger = logging.getLogger(__name__)

Cache: Any = FunctionCache

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}

MAX_PROCESSES = 4
"""Processes that compile at a time."""

_declared: dict[str, list[tuple[Any, tuple[Any, ...]]]] = {}
"""Compiled functions by module, in the order of their definition, with the types of their arguments."""


def jit(*signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with numba: without the GIL, and with numpy's rules of division.

    The machine code is kept beside the source or in the user's cache folder; where neither can be written, or the kept
    code is damaged, the function is compiled again in each process.

    Args:
        signature: Types of the arguments in numba's notation ("i8[:, ::1]"), or functions that give an example of one
            that has no such name. Without any, nothing is declared.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = _compiled(function)
        if signature:
            _declared.setdefault(function.__module__, []).append((dispatcher, signature))
        return dispatcher

    return decorate


def _compiled(function: Callable[..., Any]) -> Any:
    dispatcher: Any = njit(**OPTIONS)(function)
    with suppress(RuntimeError):  # there is no folder to write to
        dispatcher._cache = _DiskCache(function)  # noqa: SLF001 (as cache=True, but with our error handling)
    return dispatcher


class _DiskCache(Cache):
    """A cache that counts damaged files as missing, and ignores a full disk."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001 (whatever is wrong with it, the function can be compiled again)
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


def cache_folder() -> str | None:
    """Return the folder that keeps the machine code of this package's modules; None if there is none to write to."""

    def example() -> None: ...

    cache = getattr(_compiled(example), "_cache", None)
    return str(cache.cache_path) if isinstance(cache, _DiskCache) else None


def compile_ahead(modules: Sequence[str]) -> None:
    """Compile the declared functions of modules that are not on disk yet, on all cores, and show how far it is.

    On later calls, and on later runs on the same machine, this only loads the machine code.
    """
    functions = _functions(modules)
    missing = [(function, arguments) for function, arguments in functions if not _load(function, arguments)]
    if not missing:
        return
    logger.info(f"Compiling {format_count(len(missing), 'function')} for this processor; once on each machine.")
    can_share = not any(isinstance(function._cache, NullCache) for function, _ in missing)  # noqa: SLF001
    with ExitStack() as stack, progress_bar("Compiling") as progress:
        if can_share and len(missing) > 2:
            for number in range(count := min(cpu_count(), MAX_PROCESSES) - 1):
                stack.enter_context(_helper(modules, number, count))
        for done, (function, arguments) in enumerate(missing, 1):
            function.compile(arguments)  # from disk, if another process was faster
            progress(done, len(missing))


def compile_share(modules: Sequence[str], number: int, count: int) -> None:
    """Compile every `count`-th declared function from the end on; run in a process of its own by `compile_ahead`."""
    for function, arguments in reversed(_functions(modules)[number::count]):
        function.compile(arguments)


def _functions(modules: Sequence[str]) -> list[tuple[Any, tuple[Any, ...]]]:
    """The declared functions and the types of their arguments."""
    for module in modules:
        import_module(module)
    return [
        (function, tuple(_type_of(argument) for argument in signature))
        for module in modules
        for function, signature in _declared.get(module, ())
    ]


@cache
def _type_of(argument: Any) -> Any:
    if isinstance(argument, str):
        return eval(argument, {"__builtins__": {}}, vars(types))  # noqa: S307 (our own texts)
    return typeof(argument())  # type: ignore[no-untyped-call]


def _load(function: Any, arguments: tuple[Any, ...]) -> bool:
    """True if the machine code was loaded, or had been."""
    if arguments in function.overloads:
        return True
    if function._cache.load_overload(arguments, function.targetctx) is None:  # noqa: SLF001
        return False
    function.compile(arguments)
    return True


@contextmanager
def _helper(modules: Sequence[str], number: int, count: int) -> Iterator[None]:
    """While the block runs, another process compiles its share."""
    code = f"from geopsp.core.jit import compile_share; compile_share({list(modules)!r}, {number}, {count})"
    paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    null = subprocess.DEVNULL
    try:
        process = subprocess.Popen(  # noqa: S603 (this interpreter, our own code)
            [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, stdin=null, stdout=null, stderr=null
        )
    except OSError:  # no process can be started: this one compiles everything
        yield
        return
    try:
        yield
    finally:
        process.terminate()
        process.wait()
