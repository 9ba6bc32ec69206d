"""The lab's Kubernetes: an API server in memory that real clients accept, and the controllers behind it."""
