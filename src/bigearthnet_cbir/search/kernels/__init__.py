"""Compiled search kernels (numba and LLVM IR); docs/kernels.md says what each computes."""
