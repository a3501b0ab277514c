"""The paper's tables and figures: their rows, runs and reports."""
