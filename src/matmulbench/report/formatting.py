"""Figures as text: the same form in the terminal, on the page, in charts and in the README."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from matmulbench.dtypes import DTYPES

NOTHING = "–"
_UNITS = ((1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s"), (60.0, "min"), (3600.0, "h"), (86400.0, "d"))
_PREFIXES = ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"))


def known(value: Any) -> float | None:
    """Return ``value`` as a finite number, or None where there is none (None, NaN, ``pandas.NA``, infinite, a text)."""
    if not isinstance(value, Real):
        return None
    number = float(value)
    return number if math.isfinite(number) else None


def digits(value: float, significant: int = 3) -> str:
    """Return ``value`` with so many significant digits, thousands set apart, and no exponent."""
    if value == 0:
        return "0"
    decimals = significant - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    # Rounding may carry into the next power of ten (9.996 -> 10.0), which then needs a decimal less.
    decimals = significant - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, decimals)}f}"


def _span(low: float, high: float) -> str:
    """Return two numbers with as many digits, three at least, as it takes to tell them apart."""
    pairs = [(digits(low, n), digits(high, n)) for n in (3, 4, 5, 6)]
    return "–".join(next((pair for pair in pairs if pair[0] != pair[1]), pairs[0]))


def _unit(value: float) -> tuple[float, str]:
    """Pick the largest unit of which ``value`` seconds, rounded, are at least 1; at least 2 beyond the second."""
    fitting = (unit for unit in reversed(_UNITS) if value >= (1.995 if unit[0] > 1 else 0.9995) * unit[0])
    return next(fitting, _UNITS[0])


def seconds(value: Any, extrapolated: bool = False) -> str:
    """Return a time with its SI unit: ``7.50 µs``, ``293 ms``, ``≈ 5.80 h``."""
    number = known(value)
    if number is None:
        return NOTHING
    scale, name = _unit(number)
    return f"{'≈ ' * bool(extrapolated)}{digits(number / scale)} {name}"


def seconds_interval(low: Any, high: Any) -> str:
    """Return an interval of times: ``7.44–7.61 µs``."""
    first, last = known(low), known(high)
    if first is None or last is None:
        return NOTHING
    scale, name = _unit(last)
    return f"{_span(first / scale, last / scale)} {name}"


def factor(value: Any) -> str:
    """Return a speedup in words: ``1.40× faster``, ``39,100× slower``; ``1.00×`` where it is neither."""
    number = known(value)
    if number is None or number <= 0:
        return NOTHING
    times = digits(max(number, 1 / number))
    if times == "1.00":
        return "1.00×"
    return f"{times}× {'faster' if number > 1 else 'slower'}"


def factor_interval(low: Any, high: Any) -> str:
    """Return an interval of speedups: ``2.05–2.12× faster``, ``7.61–7.66× slower``, ``1.02× slower – 1.30× faster``."""
    first, last = known(low), known(high)
    if first is None or last is None or first <= 0:
        return NOTHING
    if first == last:
        return factor(first)
    if first < 1 < last:
        return f"{factor(first)} – {factor(last)}"
    return f"{_span(first, last)}× faster" if first >= 1 else f"{_span(1 / last, 1 / first)}× slower"


def compared(speedup: Any, verdict: Any, other: str = "", low: Any = None, high: Any = None) -> str:
    """Return a speedup over ``other`` in words that claim no more than its ``verdict``: ``2.08× faster than torch``.

    Where the verdict is ``unclear``, the interval from ``low`` to ``high`` is named instead, if it is known.
    """
    number = known(speedup)
    if number is None or number <= 0:
        return NOTHING
    if verdict == "unclear":
        interval = factor_interval(low, high)
        more = f" ({interval})" if interval != NOTHING else ""
        return f"not clearly faster or slower than {other}{more}" if other else f"unclear{more}"
    if verdict == "same" or factor(number) == "1.00×":
        return f"as fast as {other}" if other else "as fast"
    return f"{factor(number)} than {other}" if other else factor(number)


def flop(number: float) -> str:
    """Return a number of floating-point operations with its unit: ``3.92 GFLOP``."""
    scale, prefix = next((pair for pair in reversed(_PREFIXES) if number >= pair[0]), _PREFIXES[0])
    return f"{digits(number / scale)} {prefix}FLOP"


def rate(value: Any) -> str:
    """Return a rate without its unit; one too low for three decimals keeps one digit."""
    number = known(value)
    if number is None:
        return NOTHING
    return f"{number:.3f}" if 0.0005 <= number < 1 else digits(number, 3 if number >= 1 else 1)


def rate_unit(dtype: str) -> str:
    """Return the unit of a rate of products of ``dtype``: ``GFLOP/s``, or that of integers."""
    operations = DTYPES[dtype].operations
    return "GFLOP/s" if operations == "FLOP" else f"10⁹ {operations}/s"


def percent(value: Any, of: float = 1.0) -> str:
    """Return a share as a percentage; ``of`` is what counts as the whole."""
    number = known(value)
    if number is None:
        return NOTHING
    share = 100 * number / of
    return f"{share:.1f} %" if share >= 0.1 or share == 0 else f"{digits(share, 1)} %"


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 thread``, ``2 threads``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def text(value: Any) -> str:
    """Return a text, and nothing where there is none."""
    return value if isinstance(value, str) else ""


def worded(value: Any, words: Any) -> str:
    """Return the words that are shown in place of a figure."""
    return text(words) or NOTHING


def number(form: str) -> Callable[[Any], str]:
    """Return what writes a number in a form such as ``.2g``."""
    return lambda value: NOTHING if (figure := known(value)) is None else format(figure, form)
