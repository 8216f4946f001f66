# Mask R-CNN, DLA-X60 + Elastic, with DLA's own decoder in place of FPN, 1x schedule on COCO 2017. No paper has this
# detector's figures and no full training was measured here. Give ImageNet weights with --pretrained FILE; without them,
# the backbone starts from random weights.
_base_ = "./mask_rcnn_elastic_dla60x_fpn_1x.py"

model = dict(
    neck=dict(_delete_=True, type="mmms_plugin.DLAUp", in_channels=[128, 256, 512, 1024], out_channels=256, num_outs=5)
)
