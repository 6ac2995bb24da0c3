"""Damaged copies of the zoo, seeded: each asked for over HTTP, in processes that may crash.

And of `tests.zoo.streams`: each asked for by processes with different memory, which must answer
the same (`--about values`).

`python -m tests.fuzz` runs more of them, or repeats one by its seed.
"""
