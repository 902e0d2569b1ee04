"""What all pages have in common: templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jinja2


def render(template: str, content: Mapping[str, Any]) -> str:
    """Return a page with its content; what it lacks is an error, and text in it stays text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("emolib.report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["percent"] = lambda share: "not known" if share != share else f"{share:.1%}"
    return environment.get_template(template).render(**content)
