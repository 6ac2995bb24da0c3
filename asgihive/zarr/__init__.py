"""Every HDF5 file as a Zarr v3 store: nodes, chunks and their keys."""
