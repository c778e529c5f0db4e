"""
A kubelet's pod engine over any container runtime.

For platforms that have containers but no pods: `contract` says what a runtime must do, `actions` decides
what a pod needs next, `pod_worker` does it, and `provider` makes a `vkubelet.provider.Provider` of it all.
"""
