"""Whole programs that others wrote: public suites, and what is on PyPI."""
