"""What people look at: the page in the browser, and pictures and plots of the files' values.

The page is TypeScript, in the folder `viewer/` of the repository. It is built into `dist/` here,
by `hatch_build.py` for a wheel and by `asgihive viewer build` in a clone. Only `H5App` and the
commands import what is here.
"""
