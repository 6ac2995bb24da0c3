"""HDF5's filters, undone: the pipeline of a dataset, and one module for each filter or family.

To add a filter, put a module into this folder with `FILTERS`, a tuple of `FilterDecoder`, one for
each registered number (https://support.hdfgroup.org/documentation/index.html, "Registered
Filter Plugins"). `pipeline` finds it by itself. What has no module is undone by libhdf5, one filter
at a time, so that the size of what it gives can be checked (`library`).

A decoder trusts nothing: the sizes that a format announces are compared with what is stored and
with what is expected before anything is allocated. It releases the GIL for the work itself, and
calls nothing of libhdf5.
"""
