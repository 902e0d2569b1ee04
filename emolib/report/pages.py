"""What all pages have in common: a new folder to lie in, and templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2
from upath import UPath

from emolib.errors import SettingsError
from emolib.storage import AnyPath, resolve


def new_folder(out: AnyPath) -> UPath:
    """Return where a page will lie.

    Raises
    ------
    SettingsError
        If there is something.
    """
    folder = resolve(out)
    if folder.exists() and any(folder.iterdir()):
        raise SettingsError(f"{out} exists and is not empty, expected a new folder for the page: name another --out")
    return folder


def render(template: str, content: Mapping[str, Any]) -> str:
    """Return a page with its content; what it lacks is an error, and text in it stays text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("emolib.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda share: "not known" if share != share else f"{share:.1%}"
    return environment.get_template(template).render(**content)
