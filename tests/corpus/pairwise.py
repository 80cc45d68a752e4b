"""A covering array: few cases in which all pairs of values come up, whatever else they hold."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

Case = dict[str, str]

CANDIDATES = 10
"""Cases that are tried for each that is kept; more give fewer cases."""


ATTEMPTS = 300
"""Draws after which a pair counts as impossible."""


def covering_array(
    factors: Mapping[str, Sequence[str]], possible: Callable[[Case], bool] = lambda _: True
) -> list[Case]:
    """Return cases, one value of each factor, that hold every pair of values that `possible` allows.

    Greedy: each case is the best of a few drawn around a pair that is still open. The same cases each time.
    """
    rng = random.Random(0)
    names = list(factors)
    open_pairs = {
        ((a, x), (b, y)): None for a, b in combinations(names, 2) for x in factors[a] for y in factors[b]
    }  # a dict keeps the order
    cases: list[Case] = [{name: factors[name][0] for name in names}]
    for pair in _pairs(cases[0], names):
        open_pairs.pop(pair, None)
    while open_pairs:
        fixed = dict(next(iter(open_pairs)))
        start = _draw(factors, fixed, possible, rng)
        if start is None:
            open_pairs.pop(next(iter(open_pairs)))
            continue
        drawn = [_varied(start, factors, fixed, possible, rng) for _ in range(CANDIDATES)]
        best = max(drawn, key=lambda case: sum(pair in open_pairs for pair in _pairs(case, names)))
        cases.append(best)
        for pair in _pairs(best, names):
            open_pairs.pop(pair, None)
    return cases


def _draw(
    factors: Mapping[str, Sequence[str]], fixed: Case, possible: Callable[[Case], bool], rng: random.Random
) -> Case | None:
    """Return a case with the fixed values; None if none is found.

    Half of the draws keep most factors at their first value, the plain one, which goes with most others.
    """
    for attempt in range(ATTEMPTS):
        plain = rng.random() if attempt % 2 else 0.0
        case = {
            name: fixed.get(name) or (values[0] if rng.random() < plain else rng.choice(values))
            for name, values in factors.items()
        }
        if possible(case):
            return case
    return None


def _varied(
    start: Case, factors: Mapping[str, Sequence[str]], fixed: Case, possible: Callable[[Case], bool], rng: random.Random
) -> Case:
    """Return a case with other values, one factor after the other in any order; the fixed ones stay."""
    case = start
    for name in rng.sample(list(factors), len(factors)):
        other = case | {name: fixed.get(name) or rng.choice(factors[name])}
        if possible(other):
            case = other
    return case


def _pairs(case: Case, names: Sequence[str]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    return [((a, case[a]), (b, case[b])) for a, b in combinations(names, 2)]


def case_id(case: Case, factors: Mapping[str, Sequence[str]], *before: str) -> str:
    """Return a name for a case: the values that are not the plain ones."""
    told = [case[name] for name in factors if case[name] != factors[name][0]]
    return ",".join([*before, *(told or ["plain"])])
