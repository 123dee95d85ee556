"""Kernels for packed encoders on CPUs with AVX512-BF16: built once by the machine's own compiler, called by ctypes."""
