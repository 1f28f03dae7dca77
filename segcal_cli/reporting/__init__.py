"""Makes documents of results: CSV, strict JSON, tables for people."""
