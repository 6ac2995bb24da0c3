"""Damaged copies of the zoo, seeded: each asked for over HTTP, in processes that may crash.

`python -m tests.fuzz` runs more of them, or repeats one by its seed.
"""
