"""The data sets, as arrays."""
