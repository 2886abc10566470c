"""Privacy accounting, by Google's dp-accounting: never our own.

`gaussian.py` has epsilon and calibration for the repeated, subsampled Gaussian mechanism.
"""

from privjax.accounting.gaussian import calibrate, epsilon

__all__ = ["calibrate", "epsilon"]
