# For detection; replaces the backbone of the host's config.
ps_r50 = dict(
    _delete_=True,
    type="mmms_plugin.PSResNet",
    depth=50,
    dilation_pattern=(2, 1, 4, 1),  # the paper's 1, 2, 1, 4 in the order of the authors' weights
    frozen_stages=1,
    norm_eval=True,
)
