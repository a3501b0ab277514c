"""Log Z of any density, with errors, bounds and warnings."""
