"""The engine: what is left to do, the Dask cluster, the tasks, the commit of results."""
