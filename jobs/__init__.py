"""The batch jobs: where Dask and the command line live."""
