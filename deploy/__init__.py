"""What runs Tollgate for others: image, balancer, compose, kubernetes, dashboards. Nothing of the application."""
