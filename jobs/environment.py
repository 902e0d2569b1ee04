"""Switches of libraries, as environment variables: for a job and for all processes that it starts."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from pathlib import Path


def set_switches() -> None:
    """Keep libraries from writing below the user's home, and TensorFlow from its own order of sums.

    Call it before they are imported: that is when they read it. What the user has set stays. ONNX Runtime's telemetry
    is turned off by `emolib` itself.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # oneDNN sums in an order of its own on each CPU type, and TensorFlow says so at every start.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    # Each of them goes on without a folder where none can be made.
    # dask-jobqueue and dask-cloudprovider write a file of commented-out defaults. The user's own files are still read.
    os.environ.setdefault("DASK_CONFIG", os.devnull)
    # Keras writes its defaults. The user's file is not read: it would change a model's numbers, and nobody would know.
    os.environ.setdefault("KERAS_HOME", os.devnull)
    if "MPLCONFIGDIR" not in os.environ:
        # matplotlib then keeps its list of fonts in a temporary folder, deletes that at exit, and logs a warning. The
        # list takes 0.2 s for 70 fonts; with thousands, set MPLCONFIGDIR. The user's own settings are still read.
        os.environ["MPLCONFIGDIR"] = os.devnull
        os.environ.setdefault("MATPLOTLIBRC", str(_matplotlib_settings()))
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def remove_caches() -> None:
    """Remove the folder in which matplotlib keeps its list of fonts: for a process that ends before that does so."""
    if os.environ.get("MPLCONFIGDIR") == os.devnull and (matplotlib := sys.modules.get("matplotlib")):
        shutil.rmtree(matplotlib.get_configdir(), ignore_errors=True)


def _matplotlib_settings() -> Path:
    """Return where matplotlib looks for the user's settings if nothing else is set."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111  # Path.home() fails where there is none
    if sys.platform == "darwin":
        return home / ".matplotlib"
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "matplotlib"
