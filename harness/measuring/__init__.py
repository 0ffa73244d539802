"""Joules from counters: windows, idle floor, repeats and their spread, attribution to phases and kernels."""
