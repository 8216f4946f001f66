# MSDNet for budgeted batches on CIFAR-100: 5 exits, 300 epochs, steps at 150 and 225, batch 64,
# weight decay 1e-4, plain momentum (the authors' PyTorch code). The paper shows its figures as curves only,
# Figure 7. Not measured here.
_base_ = "../_base_/cifar100_32.py"

model = dict(
    backbone=dict(type="mmms_plugin.MSDNet", arch="cifar_budgeted", output="exits"),
    neck=None,
    head=dict(
        _delete_=True,
        type="mmms_plugin.MultiExitHead",
        num_classes=100,
        in_channels=[88, 136, 104, 200, 208],
        channels=128,
    ),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(weight_decay=1e-4, nesterov=False))
auto_scale_lr = dict(base_batch_size=64)
