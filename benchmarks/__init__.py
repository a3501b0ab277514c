"""Benchmarks: one script each, which prints a table and writes JSON."""
