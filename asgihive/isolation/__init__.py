"""`isolation="process"`: files are read in processes of their own, which may crash.

    client ── front ══ HTTP/1.1 over a Unix socket ══ reader ── H5App

`front` answers the routes of the service that clients reach and opens no HDF5 file. It hands each
request to a reader process and the response back, asks another process where the first one
ended before its response began, and breaks off a response that had begun. `readers` starts,
chooses and ends the reader processes, and knows the files that crashed them. `process` is one of
them as the front sees it, `reader` what runs in it: the service itself, behind HTTP.
"""
