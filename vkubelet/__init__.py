"""
A virtual kubelet: a Kubernetes node whose pods run where a provider puts them.

A tour. The command line (`cli`) turns flags, environment and file into `settings`, and `app` wires the parts
of one node. One pod then passes five files; read them in this order::

    kube/reflector.py                 lists and watches the pods of this node
    controllers/pod_controller.py     compares wanted with actual, resolves references, calls the provider
    provider.py                       the contract: take a pod on, report how it is, stop it, forget it
    model/status.py                   from what the provider reports to `v1.PodStatus`; pure
    controllers/status_manager.py     the one writer of that status

A provider for a platform that has containers but no pods is a `ContainerRuntime`
(`kuberuntime/contract.py`) under the pod engine: `kuberuntime/actions.py` decides what comes next and is
pure, `kuberuntime/pod_worker.py` does it. The providers of this project are in the package `providers`.

Callers of the kubelet's own API (`kubectl logs`, `kubectl exec`) come in at `server/app.py`, pass
`server/auth.py` and reach the provider's streams; the bytes in between are `protocols/`, which knows no I/O.

Beside these: `model` has all rules as plain functions of values, `kube` is the one package that talks to the
API server, `errors` draws the tree of errors, `clock` is the one source of time, `logs` has the vocabulary of
log lines. Imports point one way (see ``tool.importlinter`` in pyproject.toml).

Nothing is imported here: what uses one part should not pay for the others.
"""
