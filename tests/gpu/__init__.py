"""What needs a CUDA device; `make test-gpu` runs it, and it is left out of everything else."""
