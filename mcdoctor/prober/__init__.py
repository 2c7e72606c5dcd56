"""The prober: an agent that answers probe requests with facts over a byte stream, and the client that asks it.

`agent` travels (with mcdoctor.net and the models) in a zip application; `archive`, `bootstrap`, `client` and `local`
stay on the asking side.
"""
