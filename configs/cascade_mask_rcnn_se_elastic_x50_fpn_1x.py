# Cascade Mask R-CNN, SE-ResNeXt-50 + Elastic, FPN, 1x schedule on COCO 2017. The ELASTIC paper has no detection figures
# and no full training was measured here. Give ImageNet weights with --pretrained FILE; without them, the backbone
# starts from random weights.
_base_ = ["mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py", "./_base_/backbones/se_elastic_x50.py"]

model = dict(backbone={{_base_.se_elastic_x50}})
