"""
What end-to-end tests, benchmarks and the demo stand on.

::

    go.py             finds Go; builds the programs of e2e/controlplane/ into .cache/bin
    pki.py            certificate authorities, certificates and kubeconfigs
    controlplane.py   etcd, kube-apiserver, kube-scheduler and kube-controller-manager
    docker_engine.py  finds a Docker engine, or starts one
    images.py         the container images that tests use, built here since no registry can be assumed
    vkubelet.py       `vkubelet run` as a process
    cluster.py        a control plane, its kubectl and its vkubelets
    manifests.py      valid objects for tests
    kubectl.py        the real kubectl, also on a terminal (terminal.py)
    waiting.py        waits for a condition; says what it saw when the condition does not come
    diagnosis.py      what explains a failure: objects, events, logs
    processes.py      processes that can be found, and ended, after the one that started them
    progress.py       tells a person what takes so long

Everything is plain blocking code: what is tested runs in other processes.
"""
