"""The endpoint `notes`: rows of a table, over HTTP."""

requires = ("cornerstones.db",)
