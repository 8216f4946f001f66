"""Train a model from a config, also on data of your own.

An interrupted training can be resumed.
"""

from mmms_plugin.train.options import TrainOptions as Options


def run(options: Options) -> None:
    from mmms_plugin.train.launch import train

    train(options)
