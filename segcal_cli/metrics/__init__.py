"""Measures of calibration and overlap of arrays, and what can be said of them over patients."""
