"""Kubernetes' own end-to-end tests against a virtual node; `python -m e2e.upstream` runs them."""
