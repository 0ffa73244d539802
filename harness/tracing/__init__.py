"""What ran on the device: named ranges, kernel timelines from the profiler, FLOP and bytes of an operator."""
