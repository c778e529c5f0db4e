"""
Pure values and rules: what a pod says, and what follows from it.

Nothing here waits, reads a clock or talks to anybody. Look-ups come in as arguments (`references`), what a
platform reports comes in as `observations`, and what the API server is told comes out as plain JSON objects.
"""
