"""Measuring on the device that is there.

* `timing` - two callables by the host's clock, interleaved; `device_time` - kernel durations;
  `chains` - captured chains of calls; `pairs` - a reference and candidates side by side.
* `worker` - kernels that nobody trusts yet, in a process that may die: `on_device` is its inside,
  `sift` finds the guilty one of a batch, `sketch` the one that writes what the others do not.
* `clock` - what tuning reads; `inputs` - arrays to time with.
"""
