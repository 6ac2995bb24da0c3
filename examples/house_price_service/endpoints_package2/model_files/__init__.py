"""The endpoint `model_files`: the HDF5 service over the files of the models.

h5web and every client of h5grove read the coefficients that `house_price` predicts with.
"""

from asgihive import H5App

from ...settings import models_folder

requires = ("endpoints_package1.house_price",)

router = H5App(models_folder())
