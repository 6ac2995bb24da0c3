"""`python -m benchmarks.soak`: a long day of the service, in twenty minutes.

Clients of all kinds ask two worker processes, some leave in the middle; files are rewritten,
replaced, cut off and deleted; workers are killed. Every answer is held against what was in the
file while it was asked for. At the end memory, descriptors and threads have to be flat.
"""
