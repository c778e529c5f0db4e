"""
The loops: what the API server wants is done, and what was seen is told.

`pod_controller` drives the provider, `status_manager` alone writes pod status, `pod_cleanup` removes what
nobody wants, `node_controller` and `lease_controller` keep the node alive. They share `work_queue`.
"""
