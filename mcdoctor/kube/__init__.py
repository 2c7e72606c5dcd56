"""Live clusters: kubeconfig, reading, rights, and vantages inside pods.

Reading::

    from mcdoctor.kube.config import connect, contexts
    from mcdoctor.kube.reader import ApiReader

    known = contexts(kubeconfig)                       # KubeConfigError: one clear line
    api = connect("cluster-a", kubeconfig=kubeconfig, as_user=None, as_groups=(), request_timeout=None,
                  deadline=time.monotonic() + 60, known=known)
    reader = ApiReader(api, "cluster-a")               # ports.ClusterReader; api.namespace is the context's namespace
    version = reader.check()                           # KubeConfigError when the server is dead or not one
    facts = reader.list("Service", "shop")             # never raises: KubeObject…, Listed | Absent | Blind
"""
