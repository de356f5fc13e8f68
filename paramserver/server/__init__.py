"""The server: `core` is plain Python with no Dask, no I/O and no clock; `actor` puts it on a worker."""
