# The CUDA backend's sources, for nvcc (worker/cuda) and for the emulation (tests/emulation).
set(TUNDRA_CUDA_KERNELS
  attention.cu attention_forward.cu attention_key_gradient.cu attention_pack.cu
  attention_query_gradient.cu attention_ragged.cu elementwise.cu gemm.cu gradient.cu lora.cu
  loss.cu norm.cu tokens.cu)
set(TUNDRA_CUDA_HOST
  backend.cc cuda_ops.cc device_cuda.cc frozen.cc ragged_attention.cc)
list(TRANSFORM TUNDRA_CUDA_KERNELS PREPEND ${CMAKE_SOURCE_DIR}/worker/cuda/)
list(TRANSFORM TUNDRA_CUDA_HOST PREPEND ${CMAKE_SOURCE_DIR}/worker/cuda/)
