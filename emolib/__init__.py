"""emolib: distributed batch labelling of emotions in speech.

The library is pure domain code and knows no engine: sound -> features -> learning -> archive -> report. The batch jobs
that schedule it lie in the package ``jobs``.
"""

import os

__version__ = "0.1.0"

# Without it ONNX Runtime writes a device id and a database of events below the user's home, and sends them away. It is
# read when that is imported, never again: a script that imports onnxruntime before emolib has to set it itself.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
