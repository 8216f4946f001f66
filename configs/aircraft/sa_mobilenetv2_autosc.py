# MobileNetV2 on FGVC-Aircraft, compressed by shape adaptors (AutoSC): 200 epochs, batch 8, cosine.
# The authors' page, table of AutoSC: top-1 error 21.05 (accuracy 78.95) at 326 M multiply-adds; as designed 22.36 at
# 330 M. Not measured here.
_base_ = "./sa_mobilenetv2.py"

model = dict(backbone=dict(mode="autosc", limit_side=None))
