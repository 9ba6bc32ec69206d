"""The gRPC messages and services of Talos, COSI and Hubble, as far as fluobook and its lab speak them.

`proto/` holds our own subset of their `.proto` files: packages, names and field numbers are the real ones, so that
clients and servers generated from the official files understand ours. `generated/` is made from it by `make proto`.
"""
