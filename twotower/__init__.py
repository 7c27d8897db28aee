"""The kernel: what two processes of Twotower must agree on."""

__version__ = "0.1.0"
