"""Timings of privjax; see `__main__`."""
