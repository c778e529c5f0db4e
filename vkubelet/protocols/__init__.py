"""
The stream protocols of the kubelet's API as pure state machines: bytes in, events out, and back.

Nothing here waits, opens a socket or reads a clock, so every rule can be tested with bytes alone. Driving
a real connection is `vkubelet.server`'s part.
"""
