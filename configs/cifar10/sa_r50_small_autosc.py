# r50_small.py, compressed by shape adaptors (AutoSC): 4.9 MMAC before training. reduced_r50_small.py is its twin at the
# same cost. No paper has it; not measured here.
_base_ = "./sa_r50_small.py"

model = dict(backbone=dict(mode="autosc"))
