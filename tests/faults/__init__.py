"""What must hold when processes are killed and databases go away."""
