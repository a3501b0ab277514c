"""The experiments: command-line programs around the pure library `ais_jax`."""

import sys

from experiments.system import signals

if sys.argv[0] == "-m":  # one of the programs starts: no import of it is unguarded
    signals.watch()
