# docker build -t mmms . && docker run --rm -v "$PWD:/data" mmms check-data .    # for a GPU: --build-arg TORCH=cu126, --gpus all
FROM python:3.12-slim
ARG TORCH=cpu
ENV PIP_CONSTRAINT=/src/requirements/constraints.txt PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY . /src
RUN pip install --extra-index-url https://download.pytorch.org/whl/$TORCH torch torchvision "/src[openmmlab,mmpretrain]"
# The image has none of the desktop libraries that opencv-python loads.
RUN pip uninstall -y opencv-python && pip install --no-deps --force-reinstall opencv-python-headless
WORKDIR /data
ENTRYPOINT ["mmms"]
