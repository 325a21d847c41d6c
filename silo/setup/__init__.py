"""Getting what the host lacks: packages, and a kernel for the guests. Finding out what works is the job of the backends' probes."""
