"""Packaging for tools that ask for this file; all of it is in pyproject.toml."""

from setuptools import setup

setup()
