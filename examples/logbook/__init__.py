"""A logbook for experiments, as a hive."""
