"""`isolation="process"`: files are read in processes of their own, which may crash.

A reader process (`reader`) is the service itself behind HTTP on a Unix socket:

    client ── front ── relay ══ HTTP/1.1 ══ reader ── H5App
                └─ readers ── process ══ control socket ══┘

`front` is the endpoint of the service that clients see; it opens no HDF5 file. `relay` hands one
request to a reader process and the response back. It asks another reader process where the first
one ended before its response began, and breaks off what had begun. `readers` starts, chooses
and ends the reader processes, and knows the files that crashed them. `process` is one of them, as
the front sees it.
"""
