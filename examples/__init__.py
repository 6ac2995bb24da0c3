"""Whole services, which the tests run."""
