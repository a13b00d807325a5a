"""Compiled search kernels (numba and LLVM IR); docs/kernels.md describes each module."""
