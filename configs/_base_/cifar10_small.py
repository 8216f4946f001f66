# Small networks that learn CIFAR-10 on a CPU: 20 epochs, one-cycle learning rate. All configs of cifar10/ share it, so
# that they differ only in the network.
_base_ = "./cifar_32.py"

train_dataloader = dict(num_workers=1)
val_dataloader = dict(num_workers=1)
test_dataloader = dict(num_workers=1)
train_cfg = dict(max_epochs=20)
param_scheduler = dict(
    _delete_=True,
    type="OneCycleLR",
    eta_max=0.1,
    total_steps=20,
    pct_start=0.2,
    by_epoch=True,
    convert_to_iter_based=True,
)
default_hooks = dict(checkpoint=dict(interval=20, max_keep_ckpts=1, save_best=None))
randomness = dict(seed=0, deterministic=True)
