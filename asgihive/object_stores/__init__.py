"""HDF5 files in object stores: S3, Google Cloud Storage, Azure, directories of web servers.

The rooms above read an object as they read a file: `sandbox` finds it, `object_file` stands where
a descriptor stands, `listing` lists a folder, and `store` asks the store, by obstore.
"""
