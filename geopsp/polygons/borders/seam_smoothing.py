"""Borders that go on over seams as one arc, smoothed where they had to wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.seam_nodes import SeamNodes
from geopsp.polygons.borders.smooth import SmoothingState, resume_smoothing
from geopsp.polygons.borders.topology import Arcs
from geopsp.polygons.borders.trace_arcs import ArcGraph

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """Arcs made of several."""

    net: ArcGraph

    rough: SmoothingState
    """The same arcs, as far as they are smoothed."""


def smooth_across_seams(
    net: ArcGraph, met: SeamNodes, others: Floats, *, rounds: int, hold: float
) -> tuple[ArcGraph, Floats]:
    """Borders go on over seams as if there were none, smoothed like everywhere else.

    Args:
        net: Arcs smoothed in cells, of which those that end at seams waited.
        met: The corners on seams.
        others: (vertices, 2) of all borders near seams, but those where one just goes on.
        rounds: Of smoothing.
        hold: Pixels from a seam's corner up to which vertices waited.

    Returns:
        The arcs, and (vertices, 2) of all borders near seams as they are now.
    """
    chains = join_arcs(net, met, rounds=rounds, hold=hold)
    arcs, rough = chains.net.arcs, chains.rough
    inner = (arcs.left > 0) & (arcs.right > 0)
    if not len(arcs):
        return chains.net, others
    chosen = np.flatnonzero(inner & (np.minimum.reduceat(rough.done, arcs.starts[:-1]) < rounds))
    vertices = _ragged(arcs.starts[chosen], np.diff(arcs.starts)[chosen])
    some = Arcs(arcs.xy[vertices], _starts(np.diff(arcs.starts)[chosen]), arcs.left[chosen], arcs.right[chosen])
    others = others[~np.isin(others @ (1, 1j), some.xy @ (1, 1j))]
    found = resume_smoothing(
        SmoothingState(some, rough.loops[chosen], rough.done[vertices], rough.waits[chosen]), rounds, others, hold=hold
    )
    return _replaced(chains.net, chosen, found), np.concatenate([others, found.xy])


def join_arcs(net: ArcGraph, met: SeamNodes, *, rounds: int, hold: float) -> Chains:
    """Arcs that go on where only one other does are one with it, without the corners that are not kept."""
    arcs = net.arcs
    waited, waits = np.zeros((len(arcs), 2), np.bool_), np.zeros((len(arcs), 2), np.bool_)
    waited[met.darts >> 1, met.darts & 1] = True
    waits[met.unknown >> 1, met.unknown & 1] = True
    link = np.full(2 * len(arcs), -1, np.int64)
    partners = net.following[met.through ^ 1]
    link[met.through ^ 1], link[partners ^ 1] = partners, met.through
    done = _done(arcs.xy, arcs.starts, waited, rounds, hold)
    xy, starts, done, first, last, loops = _chain(arcs.xy, arcs.starts, net.kept, link, done)
    place = np.full(2 * len(arcs) + 1, -1, np.int32)
    place[first], place[last ^ 1] = 2 * np.arange(first.size), 2 * np.arange(first.size) + 1
    follow, other = (
        np.column_stack([place[after[last]], place[after[first ^ 1]]]) for after in (net.following, net.instead)
    )
    follow[loops] = np.column_stack([2 * np.flatnonzero(loops), 2 * np.flatnonzero(loops) + 1])
    backwards = (first & 1).astype(np.bool_)
    sides = arcs.left[first >> 1], arcs.right[first >> 1]
    made = Arcs(xy, starts, np.where(backwards, sides[1], sides[0]), np.where(backwards, sides[0], sides[1]))
    ways = np.column_stack([_way(net.ways, first), _way(net.ways, last ^ 1) ^ 2])
    kept = np.column_stack([net.kept[first >> 1, first & 1], net.kept[last >> 1, 1 - (last & 1)]]) | loops[:, None]
    still = np.column_stack([waits[first >> 1, first & 1], waits[last >> 1, 1 - (last & 1)]])
    whole = ArcGraph(made, ways, follow.reshape(-1), other.reshape(-1), kept)
    return Chains(whole, SmoothingState(made, loops, done, still))


def _way(ways: NDArray[np.int8], darts: NDArray[np.int64]) -> NDArray[np.int8]:
    """(darts,) the direction in which each begins."""
    found: NDArray[np.int8] = np.where(darts & 1, ways[darts >> 1, 1] ^ 2, ways[darts >> 1, 0])
    return found


def _replaced(net: ArcGraph, chosen: NDArray[np.int64], found: Arcs) -> ArcGraph:
    """The same arcs, the chosen ones with other vertices."""
    arcs = net.arcs
    begins, sizes = arcs.starts[:-1].copy(), np.diff(arcs.starts)
    begins[chosen], sizes[chosen] = len(arcs.xy) + found.starts[:-1], np.diff(found.starts)
    xy = np.concatenate([arcs.xy, found.xy])[_ragged(begins, sizes)]
    whole = Arcs(xy, _starts(sizes), arcs.left, arcs.right)
    return ArcGraph(whole, net.ways, net.following, net.instead, net.kept)


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _ragged(begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """So many numbers from each beginning on."""
    result: NDArray[np.int64] = np.arange(sizes.sum()) + np.repeat(begins - _starts(sizes)[:-1], sizes)
    return result


@jit
def _done(xy: Any, starts: Any, waited: Any, rounds: Any, hold: Any) -> Any:
    """(vertices,) rounds each has had: all, but near ends that waited the fewer the nearer."""
    done = np.full(len(xy), rounds, np.int8)
    for arc in range(len(waited)):
        for end in range(2):
            last = starts[arc + 1] - 1 if end else starts[arc]
            if not waited[arc, end]:
                continue
            for step in range(min(2 * rounds, starts[arc + 1] - starts[arc])):
                at = last - step if end else last + step
                if max(abs(xy[at, 0] - xy[last, 0]), abs(xy[at, 1] - xy[last, 1])) <= hold:
                    done[at] = min(done[at], step // 2)
    return done


@jit
def _chain(xy: Any, starts: Any, kept: Any, link: Any, done: Any) -> Any:
    """Vertices of the chains, where each begins, the rounds they had, first and last darts, and which go round."""
    count = starts.size - 1
    new, new_starts, rounds = (
        np.empty((len(xy) + count, 2)),
        np.zeros(count + 1, np.int64),
        np.empty(len(xy) + count, np.int8),
    )
    first, last, loops = np.empty(count, np.int64), np.empty(count, np.int64), np.zeros(count, np.bool_)
    seen = np.zeros(count, np.bool_)
    used, made = 0, 0
    for closed in (False, True):
        for arc in range(count):
            if seen[arc] or not (closed or link[2 * arc] < 0 or link[2 * arc + 1] < 0):
                continue
            dart = 2 * arc if closed or link[2 * arc + 1] < 0 else 2 * arc + 1
            first[made], loops[made] = dart, closed
            begin = True
            while True:
                number, backwards = dart >> 1, dart & 1
                seen[number] = True
                low, high = starts[number], starts[number + 1]
                keep = kept[number, backwards] or (begin and not closed)
                for step in range(0 if keep else 1, high - low - 1):
                    at = high - 1 - step if backwards else low + step
                    new[used], rounds[used] = xy[at], done[at]
                    used += 1
                begin = False
                if link[dart] < 0 or link[dart] == first[made]:
                    break
                dart = link[dart]
            last[made] = dart
            end = low if backwards else high - 1
            if closed:
                new[used], rounds[used] = new[new_starts[made]], rounds[new_starts[made]]
            else:
                new[used], rounds[used] = xy[end], done[end]
            used += 1
            made += 1
            new_starts[made] = used
    return (
        new[:used].copy(), new_starts[: made + 1].copy(), rounds[:used].copy(), first[:made].copy(),
        last[:made].copy(), loops[:made].copy(),
    )  # fmt: skip
