"""The whole stack as processes, from the files under deploy/; parts of it are restarted and killed under load."""
