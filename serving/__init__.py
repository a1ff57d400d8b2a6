"""The reader as an HTTP service with a page: `python -m serving`."""
