"""Loads the model once, when the service starts."""

from asgihive import EndpointHooks

from ...settings import models_folder
from .model import HousePriceModel, write_default


class EndpointHooksImpl(EndpointHooks):
    """`app_state` holds `model`."""

    def setup(self) -> None:
        """In a worker thread, since it is `def`: h5py may take its time."""
        path = models_folder() / "house_price.h5"
        if not path.exists():
            write_default(path)
        self.app_state["model"] = HousePriceModel.read(path)
