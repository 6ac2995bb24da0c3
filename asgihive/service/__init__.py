"""The HDF5 service: where files, encoders and HTTP come together."""

from asgihive.service.app import H5App

__all__ = ["H5App"]
