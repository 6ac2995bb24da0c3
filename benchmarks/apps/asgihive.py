"""asgihive with its default settings, or those of the environment."""

from asgihive import H5App, H5Settings


def create(directory: str) -> H5App:
    return H5App(directory, settings=H5Settings.from_environment())
