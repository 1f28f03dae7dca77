"""Drives work over cases: one after the other with decode-ahead, or in processes; results do not show which."""
