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

Probing from the source pod (`vantage.choose` does the choice between ephemeral, pod, exec, local and none)::

    from mcdoctor.kube import vantage
    from mcdoctor.kube.agent import Agent, NoVantage
    from mcdoctor.kube.ephemeral import Place

    def talk(stream, vantage):     # the carrier is given here, since kube and prober do not know each other
        return StreamProber(stream.reader, stream.writer, vantage).start(envelope(archive, binary=True))

    agent = Agent(tuple(bootstrap.command()), talk)
    place = Place(cluster="cluster-a", namespace="shop", pod="frontend-x", node="n1", captured=None)
    plan = vantage.choose("auto", api, place, agent, image=..., local=None)   # creates nothing; never raises
    plan.kind, plan.creates, plan.limits               # what it will be, sentences for the prompt, Blind facts
    opened = plan.open()                               # NoVantage(blinds): why not
    opened.prober, opened.limits
    lines = opened.close()                             # idempotent, also after an interrupt; lines for the user

`plan.open()` undoes itself when interrupted; after it has returned, the caller owns `close()`.
"""
