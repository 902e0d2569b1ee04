"""Options that are spelt in a line: which party is on which channel, codes, shares."""

from __future__ import annotations

from collections.abc import Iterable

from emolib.errors import Code, SettingsError


def channels(texts: Iterable[str]) -> dict[str, dict[str, str]]:
    """Read ``0=agent,1=customer`` and ``inbound:0=customer,1=agent``: the maps by direction, empty for any.

    Examples
    --------
    >>> channels(["0=agent,1=customer", "inbound:0=customer, 1=agent"])
    {'': {'0': 'agent', '1': 'customer'}, 'inbound': {'0': 'customer', '1': 'agent'}}
    """
    maps: dict[str, dict[str, str]] = {}
    for text in texts:
        direction, _, pairs = text.rpartition(":")
        roles = _pairs(pairs)
        if roles is None or not all(map(str.isdecimal, roles)) or direction.strip() not in ("", "inbound", "outbound"):
            raise SettingsError(
                f"channels {text!r} found, expected something like 0=agent,1=customer or inbound:0=customer,1=agent"
            )
        if direction.strip() in maps:
            of = f" of {direction.strip()} calls" if direction.strip() else ""
            raise SettingsError(f"channels {text!r} found, expected the channels{of} only once; leave one out")
        maps[direction.strip()] = roles
    return maps


def codes(text: str | None) -> frozenset[Code]:
    """Read ``killed,corrupt``."""
    try:
        return frozenset(Code(name.strip()) for name in text.split(",")) if text else frozenset()
    except ValueError as error:
        raise SettingsError(f"retry {text!r} found, expected codes such as killed,corrupt: {error}") from error


def priors(text: str | None) -> dict[str, str]:
    """Read ``neutral=0.9,anger=0.1``."""
    shares = _pairs(text) if text else {}
    if shares is None:
        raise SettingsError(f"priors {text!r} found, expected something like negative=0.1,neutral=0.8,positive=0.1")
    return shares


def _pairs(text: str) -> dict[str, str] | None:
    """Read ``name=value,name=value``; None where it is not that, or has a name twice."""
    pairs = [[side.strip() for side in pair.split("=")] for pair in text.split(",")]
    if any(len(pair) != 2 for pair in pairs) or len({pair[0] for pair in pairs}) < len(pairs):
        return None
    return dict(pairs)
