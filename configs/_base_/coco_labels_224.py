# COCO as pictures with several labels, at 224 px: the ELASTIC paper's recipe for fine-tuning (section 4.2). Its figures
# are those of COCO 2014, train2014 and val2014; --coco-dir makes the label files from the instances of that folder.
_base_ = "./imagenet_224.py"

model = dict(
    data_preprocessor=dict(num_classes=80),
    head=dict(
        _delete_=True,
        type="MultiLabelLinearClsHead",
        num_classes=80,
        thr=0.5,
        loss=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
)
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(224, 224), backend="pillow"),
    dict(
        type="PackInputs",
        meta_keys=("sample_idx", "img_path", "ori_shape", "img_shape", "scale_factor", "label_sizes"),
    ),
]
train_dataloader = dict(
    batch_size=24,  # on each of 4 GPUs
    dataset=dict(type="MultiLabelDataset", data_root="", ann_file="annotations/labels_train.json", data_prefix=""),
)
val_dataloader = dict(
    batch_size=24,
    dataset=dict(
        type="MultiLabelDataset",
        data_root="",
        ann_file="annotations/labels_val.json",
        data_prefix="",
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = [dict(type="mmms_plugin.LabelsMetric")]
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=36)
optim_wrapper = dict(optimizer=dict(lr=0.001, weight_decay=5e-4))
param_scheduler = dict(milestones=[24, 30])
auto_scale_lr = dict(base_batch_size=96)
