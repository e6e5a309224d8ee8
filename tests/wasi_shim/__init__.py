"""Tests of wasi_shim, one module for each source file.

Nearly all drive the shim as a guest does: the host calls the guest's imports one by one and looks
at the errno and at the guest's memory.
"""
