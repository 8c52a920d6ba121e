"""Load on a service, from processes of its own: prepared requests in, latencies, statuses and wrong answers out.

`python -m bench.load` is the generator: one thread around epoll, a timer in nanoseconds, prepared bytes, and a parser
of what it needs. `bench.load.process` starts it from a benchmark. Left out: pipelining, TLS, trailers.
"""
