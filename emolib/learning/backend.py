"""The packages that training needs, and scoring does not."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from emolib.errors import SettingsError

_PACKAGES = ("tensorflow", "keras", "onnx", "tf2onnx")


def require_backend() -> None:
    """Refuse to train without TensorFlow, Keras and the export to ONNX; imports none of them.

    Raises
    ------
    SettingsError
        If one is not installed.
    """
    for name in _PACKAGES:
        if find_spec(name) is None:
            version = "{}.{}".format(*sys.version_info)
            raise SettingsError(
                f"{name} is not installed in Python {version}, expected for training: "
                "pip install 'emolib[train]' with Python 3.11 to 3.13 (scoring does without)"
            )
