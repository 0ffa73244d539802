"""Campaigns: which runs are wanted, in what order they are made, and how a killed campaign goes on.

    options, plan    the command line and the plan file: one frozen dataclass, ``Plan``
    traces           prompt and output lengths of real requests
    sampling         which requests a plan asks for
    focused          requests chosen on the way, where a predictor is least certain
    estimate         what a request costs in time, memory and energy, before anything runs
    clipping         requests shortened to the model's context, to memory and to the time budget
    jobs, queue      the runs of a campaign and how far they are, safe against ``kill -9``
    folder           one campaign at a time in a folder

Nothing here imports torch.
"""
