"""Sizes nearest to one that does not divide, for error messages."""

import math


def nearest_words(size: int, divisor: int) -> str:
    """The multiples of `divisor` around `size`: "992 and 1024".

    Only the upper one is named where the lower one would be 0.
    """
    below = size // divisor * divisor
    return f"{below} and {below + divisor}" if below else str(divisor)


def nearest_divisors(wanted: int, sizes: list[int]) -> str:
    """The numbers around `wanted` that divide at least one of `sizes`: "2 and 4"."""
    fitting = sorted({divisor for size in sizes for divisor in divisors(size)})
    below = [divisor for divisor in fitting if divisor < wanted][-1:]
    above = [divisor for divisor in fitting if divisor > wanted][:1]
    return " and ".join(map(str, below + above))


def divisors(size: int) -> list[int]:
    """All divisors, ascending: 12 -> [1, 2, 3, 4, 6, 12]."""
    small = [number for number in range(1, math.isqrt(size) + 1) if size % number == 0]
    return sorted({*small, *(size // number for number in small)})
