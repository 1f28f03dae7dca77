"""Kandinsky conformal prediction: prediction sets calibrated where similar voxels are pooled. Arrays only."""
