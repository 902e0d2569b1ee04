"""emolib: distributed batch labelling of emotions in speech.

The library is pure domain code and knows no engine: sound -> features -> learning -> archive -> report. The batch jobs
that schedule it lie in the package ``jobs``.
"""

__version__ = "0.1.0"
