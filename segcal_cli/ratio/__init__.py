"""Ratio biomarkers: the ratio of two soft volumes with intervals that hold. Arrays only."""
