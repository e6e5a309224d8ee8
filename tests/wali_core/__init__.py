"""Tests of wali_core, a file for each of its modules."""
