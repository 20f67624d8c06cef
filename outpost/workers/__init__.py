"""Several serving processes under one parent that owns identity."""
