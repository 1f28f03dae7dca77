"""Conformal sets: an inner mask that lies in the target and an outer one that holds it, each with a stated
probability.

Davenport 2024, "Conformal confidence sets for biomedical image segmentation". Arrays only: no paths, no printing.
"""
