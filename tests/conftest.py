"""Settings that hold for every test."""

from hypothesis import settings

# Examples are the same on every run, and a busy machine is no failure.
settings.register_profile("segcal", deadline=None, derandomize=True)
settings.load_profile("segcal")
