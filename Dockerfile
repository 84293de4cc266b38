# fbnetv3 for CPUs, with the extra all and detectron2.
#   docker build --tag fbnetv3 .
#   docker run --rm --volume "$PWD:/data" fbnetv3 fbnetv3-predict /data/photo.jpg --model fbnetv3_nano_a.cifar10
# For the light installation, which trains nothing: docker build --build-arg EXTRA=none --tag fbnetv3 .
# For a mirror of PyTorch's index: --build-arg TORCH_INDEX=https://...

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir "build>=1.2" && python -m build --wheel --outdir /dist

FROM python:3.11-slim
ARG EXTRA=all
# PyTorch's CPU build; the one of the package index brings CUDA's libraries, some 3 GB to download
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" \
    "torch>=2.10,<3" "torchvision>=0.25,<1"
COPY --from=wheel /dist /dist
RUN pip install --no-cache-dir /dist/*.whl
RUN if [ "$EXTRA" != none ]; then \
    pip install --no-cache-dir "fbnetv3[$EXTRA]>=0.2" && fbnetv3-install-detectron2; fi
RUN useradd --create-home fbnetv3
USER fbnetv3
WORKDIR /home/fbnetv3
CMD ["fbnetv3-zoo", "list"]
