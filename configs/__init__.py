"""Configurations of the experiments, one `get_config` a file."""
