"""Repairs probabilities after training: calibrators, and the streaming fits that find them. Arrays only."""
