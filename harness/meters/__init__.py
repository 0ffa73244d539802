"""Meters: cumulative energy counters behind one protocol, and what is known about the device beside them.

    base        the protocol, clocks, and the records a meter answers with
    nvml        NVIDIA's energy counter, one meter per GPU (the only importer of ``pynvml``)
                nvml_library (calls and their errors), nvml_errors (what codes mean), nvml_device (a GPU's state),
                guard (a time-out for calls that hang), counter (honest moves and faults)
    nvml_power  energy from sampled power, for GPUs without a counter, where the user allows it
    power       samples of power, who may deliver them, and the energy under them
    sampler     the process that samples power: sampler_main (what runs in it), sampler_records (how samples travel)
    gpus        which GPUs CUDA will use: visible (its rules), without importing torch
    rapl        the CPU's energy counters under Linux powercap
    estimate    codecarbon's model of CPU and RAM power, for machines that can read nothing
    replay      a meter that plays a given power profile, for tests and demonstrations
    host        the CPU and the machine, for the record
    period      how often a counter moves
    probe       whether a meter can be used here, for the doctor
    selection   the meters for a device, and why not the better ones

A meter that is absent raises ``MeterUnavailable``; one that stops answering raises ``MeterFailed``; none ever
answers 0 J for "I do not know".
"""
