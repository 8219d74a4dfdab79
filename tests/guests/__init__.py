"""Tests in a guest: other kernels than this machine's, by User-Mode Linux."""
