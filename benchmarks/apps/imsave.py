"""A picture of a frame as one would write it by hand: h5py, NumPy, and Matplotlib's `imsave`."""

import io
import os

import h5py
import numpy as np
from matplotlib.image import imsave
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def create(directory: str) -> Starlette:
    def draw(request: Request) -> Response:
        query = request.query_params
        with h5py.File(os.path.join(directory, query["file"]), "r") as file:
            frame = file[query["path"]][int(query["selection"])]
        height, width = (int(each) for each in query["shape"].split(","))
        bins = frame.reshape(height, frame.shape[0] // height, width, frame.shape[1] // width)
        points = bins.mean(axis=(1, 3))
        low, high = np.percentile(points, [1, 99])
        with io.BytesIO() as picture:
            imsave(picture, points, vmin=low, vmax=high, cmap="viridis", format="png")
            return Response(picture.getvalue(), media_type="image/png")

    return Starlette(routes=[Route("/image", draw)])
