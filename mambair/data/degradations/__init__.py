"""Second-order degradation for real-world super-resolution (Real-ESRGAN): kernels, image operations, pairs."""
