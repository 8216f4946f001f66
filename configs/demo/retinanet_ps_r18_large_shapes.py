# The poly-scale twin of retinanet_r18_large_shapes: what `mmms advise` makes of it. What was measured is in
# docs/seeing_scale.md.
_base_ = "retinanet_r18_large_shapes.py"

model = dict(backbone=dict(type="mmms_plugin.PSResNet", norm_eval=True))
