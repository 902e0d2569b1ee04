"""The numbers that options may have: beyond their bounds something overflows, fills the memory or never ends."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter, validators


def between(least: float, most: float) -> Parameter:
    """Return what refuses numbers outside of two bounds."""
    return Parameter(validator=validators.Number(gte=least, lte=most))


Seed = Annotated[int, between(0, 2**32 - 1)]  # Keras takes no other
Epochs = Annotated[int | None, between(1, 100_000)]
PositiveNumber = Annotated[float | None, Parameter(validator=validators.Number(gt=0))]
