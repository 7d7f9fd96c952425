"""What breaks, and what must hold nevertheless."""
