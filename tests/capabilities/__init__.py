"""Tests of capabilities, one module each."""
