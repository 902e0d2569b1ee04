"""Sound -> numbers: MFCCs, windows, and the store that holds them."""

from emolib.features.cepstra import mfcc

__all__ = ["mfcc"]
