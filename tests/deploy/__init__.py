"""The files under deploy/ and at the top, each parsed by the tool that reads it in earnest."""
