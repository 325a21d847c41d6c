"""Install what the host lacks: packages, and a kernel for the guests. The backends' probes find out what works."""
