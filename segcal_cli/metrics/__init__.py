"""Measures calibration and overlap from integer counts, and summarises them over patients. Arrays only."""
