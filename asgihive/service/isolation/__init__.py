"""`isolation="process"`: files are read in worker processes, which crash without the service.

The parent answers with what a worker process sends it and opens no HDF5 file itself:

    proxy ── supervisor ── link ══ socket pair ══ worker ── H5App
                             └──── shared memory ────┘

`proxy` passes requests on, and answers on to the clients; after a crash it asks again and goes
on where the answer broke off. `supervisor` starts and ends the processes, and says who is to
blame for a crash. `link` is the parent's end of the connection to one process, `worker` what
runs in that, `board` the memory in which it notes who is in the lanes.
"""
