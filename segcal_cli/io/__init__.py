"""Reads and writes files: one module per format, pairing, geometry, proofs, artifacts, whole-or-nothing writing."""
