"""
Pods in a Docker engine: a sandbox container for each pod, and the pod's containers in its namespaces.

`create` is what the entry point group ``vkubelet.providers`` names. `runtime` performs the steps that the
pod engine (`vkubelet.kuberuntime`) asks for; `translate` and `status` are the two directions of the mapping,
`client` and `hijack` speak to the engine. README.md says which parts of the Pod API are served.
"""
