"""Long measurements under load, each with its bound; `make test-faults` runs them."""
