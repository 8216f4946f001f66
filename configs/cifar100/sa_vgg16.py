# VGG-16 on CIFAR-100, every resizing layer a shape adaptor: 200 epochs, batch 128, cosine.
# The paper's Table 1: top-1 error 20.84 (accuracy 79.16). Not measured here.
_base_ = ["../cifar10/sa_vgg16.py", "../_base_/cifar100.py"]

model = {{_base_.cifar100}}
