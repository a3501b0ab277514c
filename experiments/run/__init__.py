"""Training and evaluation of one model, as one config says."""
