"""Virtual GPUs: a simulated machine of which every joule is known, to prove estimators on. Nothing it says is measured.

    machine = VirtualMachine(read_virtual_gpu("h100-sxm"), gpus=4, seed=7)
    decode = machine.compile(segments_of(graph, rounds=36))
    machine.run(decode, passes=500, label="decode")
    machine.meters()[0].read_j()                            # what a driver would say
    machine.truth.of("decode").kernel_energy_j              # what happened: [GPU, kernel]

Time. At the clock share f (clock ÷ full clock) the launches of a segment take

    work = launches · launch + max(FLOP / (peak · f), traffic / bandwidth, launches · latency + link bytes / link rate)
    gap  = max(0, launches · time of the host per launch − work)

with rates that are efficiency × hardware table, and FLOP and traffic slower by the GPU's place in the rank spread. A
collective starts when its last GPU arrives and moves data in step: the others wait. A pass ends when all have ended.

Power. P = idle + leakage · exp(rise · (T − T_ref)) + dynamic, where the dynamic energy is

    of work   busy · f^a · work + pJ/FLOP · FLOP · f^(a − 1) + pJ/byte · traffic + pJ/link byte · link bytes
    of gaps   gap_w · gap,   of waiting   wait_w · wait

pJ/FLOP is that of 16-bit products; for other dtypes it goes with 1 / peak, so each unit draws the same at its peak. T
goes exponentially to ambient + resistance · P. Where mean power would exceed the limit, the clock goes down in steps.

The timeline is exact. Clocks, temperature and leakage stand still within a block, a block is a cycle of piecewise
constant power repeated, and so the energy between any two times is a closed form. A block ends with a pass (a long pass
with several: after a collective, about every 0.25 s), once a temperature has moved by 0.5 °C and 0.25 s have gone by.

The sensor sees only the timeline: a counter that moves now and then, blind for a part of the time, with gain, offset
and noise; power fields that are means of the past. It says the same whenever and however often it is asked.

Simplifications. The launches of a segment run together, then their gaps (``rounds`` spreads them over layers). Memory
and links have one clock, voltage has no floor. Leakage follows the mean power of a block. The governor does not count
on waiting. A fault that begins within a pass acts from the next block on. Runs differ by nothing but temperature.
"""
