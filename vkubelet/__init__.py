"""Kubernetes nodes that are no machines."""
