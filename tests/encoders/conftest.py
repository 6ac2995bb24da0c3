"""Hypothesis settings: no deadline, since first uses build tables and machines are shared."""

from hypothesis import settings

settings.register_profile("asgihive", deadline=None)
settings.load_profile("asgihive")
