"""Evaluation of a trained model: numbers with errors, and pictures."""
